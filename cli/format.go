package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/template"
	"unicode"
	"unicode/utf8"
)

// The templates of --format, with the functions that docker gives them.

func templateFuncs() template.FuncMap {
	return template.FuncMap{
		"json": func(v any) (string, error) {
			b, err := encodeJSON(v)
			return string(b), err
		},
		"split":    strings.Split,
		"join":     joinAny,
		"title":    title,
		"lower":    strings.ToLower,
		"upper":    strings.ToUpper,
		"println":  fmt.Sprintln,
		"pad":      func(s string, left, right int) string { return spaces(left, s) + s + spaces(right, s) },
		"truncate": truncateTo,
	}
}

func spaces(n int, of string) string {
	if of == "" || n <= 0 {
		return ""
	}
	return strings.Repeat(" ", n)
}

// title makes every word's first letter a capital.
func title(s string) string {
	prev := ' '
	return strings.Map(func(r rune) rune {
		was := prev
		prev = r
		if !unicode.IsLetter(was) && !unicode.IsDigit(was) && was != '_' && was != '\'' {
			return unicode.ToTitle(r)
		}
		return r
	}, s)
}

// truncateTo cuts to length characters.
func truncateTo(s string, length int) string {
	r := []rune(s)
	if length < 0 || len(r) <= length {
		return s
	}
	return string(r[:length])
}

// joinAny joins strings, or whatever a JSON array holds.
func joinAny(list any, sep string) (string, error) {
	switch l := list.(type) {
	case nil:
		return "", nil
	case []string:
		return strings.Join(l, sep), nil
	case []any:
		words := make([]string, len(l))
		for i, x := range l {
			words[i] = fmt.Sprint(x)
		}
		return strings.Join(words, sep), nil
	}
	return "", fmt.Errorf("join: %T is no list", list)
}

// parseTemplate reads a template of --format.
func parseTemplate(text string) (*template.Template, error) {
	t, err := template.New("").Funcs(templateFuncs()).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("template parsing error: %w", err)
	}
	return t, nil
}

// unescape gives tabs and line ends that were written as \t and \n.
func unescape(s string) string { return strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(s) }

// header are the heads of a table's columns.
type header map[string]string

// Label is the head of a column of labels: that of com.example.foo-bar is "foo bar".
func (header) Label(name string) string {
	parts := strings.Split(name, ".")
	return strings.NewReplacer("-", " ", "_", " ").Replace(parts[len(parts)-1])
}

// listing prints rows of a list in the form that --format asks for. A row is a struct whose fields (and methods) are the
// template's words; headers has the same words for a table's head.
type listing struct {
	w       io.Writer
	format  string
	headers header
}

// isTable reports whether the format begins with the word table; rest is what follows.
func isTable(format string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(format, "table")
	if !ok || rest != "" && !strings.HasPrefix(rest, " ") && !strings.HasPrefix(rest, "\t") && !strings.HasPrefix(rest, `\t`) && !strings.HasPrefix(rest, "{") {
		return format, false
	}
	return strings.TrimSpace(rest), true
}

func (l *listing) print(rows []any) error {
	if l.format == "json" || l.format == "{{json .}}" {
		return l.printJSON(rows)
	}
	text, isTable := isTable(l.format)
	text = unescape(text)
	tmpl, err := template.New("").Funcs(templateFuncs()).Parse(text)
	if err != nil {
		return fmt.Errorf("failed to parse template: %w", err)
	}
	var out bytes.Buffer
	if isTable {
		if err := tmpl.Execute(&out, l.headers); err != nil {
			return fmt.Errorf("failed to execute template: %w", err)
		}
		out.WriteByte('\n')
	}
	for _, r := range rows {
		if err := tmpl.Execute(&out, r); err != nil {
			return fmt.Errorf("failed to execute template: %w", err)
		}
		out.WriteByte('\n')
	}
	if isTable {
		t := newTable(l.w, 10)
		t.text(out.String())
		return t.flush()
	}
	_, err = l.w.Write(out.Bytes())
	return err
}

func (l *listing) printJSON(rows []any) error {
	var out bytes.Buffer
	for _, r := range rows {
		b, err := json.Marshal(words(r)) // with escapes for HTML, as docker does here
		if err != nil {
			return err
		}
		out.Write(b)
		out.WriteByte('\n')
	}
	_, err := l.w.Write(out.Bytes())
	return err
}

// words makes a map of a row's exported fields.
func words(row any) map[string]any {
	v := reflect.Indirect(reflect.ValueOf(row))
	m := make(map[string]any, v.NumField())
	for i := range v.NumField() {
		if f := v.Type().Field(i); f.IsExported() && f.Tag.Get("json") != "-" {
			m[f.Name] = v.Field(i).Interface()
		}
	}
	return m
}

// encodeJSON writes one line of JSON, without escapes for HTML.
func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// ellipsis cuts to n characters, the last of which is then an ellipsis.
func ellipsis(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	r := []rune(s)
	return string(r[:n-1]) + "…"
}

// shortID is the first 12 digits of an id.
func shortID(id string) string {
	if _, hex, ok := strings.Cut(id, ":"); ok {
		id = hex
	}
	if len(id) > 12 {
		return id[:12]
	}
	return id
}
