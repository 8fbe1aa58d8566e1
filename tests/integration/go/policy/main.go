// Answers questions about versions, regular expressions and numbers with the libraries that Flux uses: one JSON value in, one out.
package main

import (
	"bufio"
	"encoding/json"
	"os"
	"regexp"
	"strconv"

	"github.com/Masterminds/semver/v3"
)

type question struct {
	Range    *string
	Pattern  *string
	Template string
	Texts    []string
}

type answer struct {
	Error string    `json:"error"`
	Valid []bool    `json:"valid,omitempty"` // text is a version, or a number
	Takes []bool    `json:"takes,omitempty"` // the range takes the version
	Order []int     `json:"order,omitempty"` // last valid version compared with this one
	Found []*string `json:"found,omitempty"` // the expanded match, or the shortest form of the number
}

func main() {
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	encoder := json.NewEncoder(out)
	for in.More() {
		var q question
		if err := in.Decode(&q); err != nil {
			panic(err)
		}
		var a answer
		switch {
		case q.Range != nil:
			versions(q, &a)
		case q.Pattern != nil:
			matches(q, &a)
		default:
			numbers(q, &a)
		}
		if err := encoder.Encode(a); err != nil {
			panic(err)
		}
	}
}

func versions(q question, a *answer) {
	constraint, err := semver.NewConstraint(*q.Range)
	if err != nil {
		a.Error = err.Error()
	}
	var last *semver.Version
	for _, text := range q.Texts {
		version, bad := semver.NewVersion(text)
		order := 0
		if bad == nil {
			if last != nil {
				order = last.Compare(version)
			}
			last = version
		}
		a.Valid = append(a.Valid, bad == nil)
		a.Takes = append(a.Takes, bad == nil && err == nil && constraint.Check(version))
		a.Order = append(a.Order, order)
	}
}

func matches(q question, a *answer) {
	pattern, err := regexp.Compile(*q.Pattern)
	if err != nil {
		a.Error = err.Error()
		return
	}
	for _, text := range q.Texts {
		var found *string
		if place := pattern.FindStringSubmatchIndex(text); place != nil {
			expanded := string(pattern.ExpandString(nil, q.Template, text, place))
			found = &expanded
		}
		a.Found = append(a.Found, found)
	}
}

func numbers(q question, a *answer) {
	for _, text := range q.Texts {
		number, err := strconv.ParseFloat(text, 64)
		shortest := strconv.FormatFloat(number, 'g', -1, 64)
		a.Valid = append(a.Valid, err == nil)
		a.Found = append(a.Found, &shortest)
	}
}
