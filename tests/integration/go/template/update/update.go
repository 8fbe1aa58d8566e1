// Package update holds what an update changed.
package update

import (
	"sort"

	"reference/yaml"
)

type ObjectIdentifier struct {
	yaml.ResourceIdentifier
}

type Change struct {
	OldValue string
	NewValue string
	Setter   string
}

type ObjectChanges map[ObjectIdentifier][]Change

type Result struct {
	FileChanges map[string]ObjectChanges
}

func (r Result) paths() []string {
	paths := []string{}
	for path := range r.FileChanges {
		paths = append(paths, path)
	}
	sort.Strings(paths)
	return paths
}

func (r Result) Objects() ObjectChanges {
	merged := ObjectChanges{}
	for _, path := range r.paths() {
		for object, changes := range r.FileChanges[path] {
			merged[object] = append(merged[object], changes...)
		}
	}
	return merged
}

// Changes are those of the file order and, in a file, of the setter order of the test's data.
func (r Result) Changes() []Change {
	all := []Change{}
	for _, path := range r.paths() {
		of := []Change{}
		for _, changes := range r.FileChanges[path] {
			of = append(of, changes...)
		}
		sort.Slice(of, func(i, j int) bool { return of[i].Setter > of[j].Setter })
		all = append(all, of...)
	}
	return all
}
