// Package yaml holds what names a YAML document.
package yaml

type TypeMeta struct {
	APIVersion string `json:"apiVersion,omitempty"`
	Kind       string `json:"kind,omitempty"`
}

type NameMeta struct {
	Name      string `json:"name,omitempty"`
	Namespace string `json:"namespace,omitempty"`
}

type ResourceIdentifier struct {
	TypeMeta `json:",inline"`
	NameMeta `json:",inline"`
}
