// Command template executes templates with Go's text/template and Sprig, for tests that compare another implementation.
//
// It reads a JSON list of {"template": ..., "values": {...}} from standard input and writes a JSON list of {"output": ...} or
// {"error": ...}. Every template sees the same data; the types have the names that Flux's have.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig/v3"

	"reference/source"
	"reference/types"
	"reference/update"
	"reference/yaml"
)

type question struct {
	Template string            `json:"template"`
	Values   map[string]string `json:"values"`
}

type answer struct {
	Output []byte `json:"output"`
	Error  string `json:"error"`
}

func object(apiVersion, kind, name, namespace string) update.ObjectIdentifier {
	return update.ObjectIdentifier{ResourceIdentifier: yaml.ResourceIdentifier{
		TypeMeta: yaml.TypeMeta{APIVersion: apiVersion, Kind: kind},
		NameMeta: yaml.NameMeta{Name: name, Namespace: namespace},
	}}
}

func data(values map[string]string) source.TemplateData {
	web := object("apps/v1", "Deployment", "web", "prod")
	return source.TemplateData{
		AutomationObject: types.NamespacedName{Namespace: "apps", Name: "upd"},
		Changed: update.Result{FileChanges: map[string]update.ObjectChanges{
			"a.yaml": {
				web:                    {{OldValue: "web:1.0.0", NewValue: "web:1.1.0", Setter: "apps:web"}, {OldValue: "api:v2", NewValue: "api:v3", Setter: "apps:api"}},
				object("", "", "", ""): {{OldValue: "1.0.0", NewValue: "1.1.0", Setter: "apps:web:tag"}},
			},
			"b/c.yaml": {object("v1", "ConfigMap", "cm", ""): {{OldValue: "old", NewValue: "web:1.1.0", Setter: "apps:web"}}},
		}},
		Values: values,
	}
}

func run(q question) (out answer) {
	parsed, err := template.New("commit message").Funcs(sprig.HermeticTxtFuncMap()).Parse(q.Template)
	if err != nil {
		return answer{Error: err.Error()}
	}
	var text strings.Builder
	if err := parsed.Execute(&text, data(q.Values)); err != nil {
		return answer{Error: err.Error()}
	}
	return answer{Output: []byte(text.String())}
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "functions" {
		for name := range sprig.HermeticTxtFuncMap() {
			fmt.Println(name)
		}
		return
	}
	var questions []question
	if err := json.NewDecoder(os.Stdin).Decode(&questions); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	answers := []answer{}
	for _, q := range questions {
		answers = append(answers, run(q))
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
