// Package source holds what a message template gets.
package source

import (
	"reference/types"
	"reference/update"
)

type TemplateData struct {
	AutomationObject types.NamespacedName
	Changed          update.Result
	Values           map[string]string
}
