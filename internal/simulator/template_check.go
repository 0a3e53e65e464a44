package simulator

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// subcodes of code 100 that templates have
const (
	subTooMany   = 2388019
	subExists    = 2388024
	subLocked    = 2388023 // its name was deleted lately
	subStatus    = 2388039
	subTooLong   = 2388040
	subHeader    = 2388047
	subBody      = 2388072
	subFooter    = 2388073
	subDangling  = 2388299
	subNotFound  = 2593002
	maxComponent = 20
)

// needs are the parameters that sending a template takes.
type needs struct {
	header     string // format of the header; empty without one
	headerVars []string
	bodyVars   []string
	buttons    []buttonNeed
	cards      int    // of a carousel
	texts      string // all of the template's, in lower case: what its filters look at
}

// buttonNeed is a button that takes a parameter.
type buttonNeed struct {
	index   int
	subType string
}

type component struct {
	Type    string            `json:"type"`
	Format  string            `json:"format"`
	Text    string            `json:"text"`
	Example json.RawMessage   `json:"example"`
	Buttons []templateButton  `json:"buttons"`
	Cards   []json.RawMessage `json:"cards"`
}

type templateButton struct {
	Type string `json:"type"`
	Text string `json:"text"`
	URL  string `json:"url"`
}

var variable = regexp.MustCompile(`\{\{\s*([A-Za-z0-9_]+)\s*\}\}`)

// variables are the distinct ones of a text, in the order in which they come.
func variables(text string) (names []string) {
	for _, found := range variable.FindAllStringSubmatch(text, -1) {
		if !slices.Contains(names, found[1]) {
			names = append(names, found[1])
		}
	}
	return names
}

func templateFault(subcode int, title, details string) *graphError {
	fault := coded(100, subcode, details)
	fault.userTitle, fault.userMessage = title, details
	return fault
}

// readComponents checks a template's components as Meta's review of their form does, and
// gives them as Meta stores them: types in upper case.
func readComponents(c *call, category, format string) (json.RawMessage, needs, *graphError) {
	var stored []map[string]any
	var list []component
	c.object("components", &stored)
	c.object("components", &list)
	switch {
	case c.fault != nil:
		return nil, needs{}, c.fault
	case len(list) == 0:
		return nil, needs{}, invalid(100, "The parameter components is required.")
	case len(list) > maxComponent:
		return nil, needs{}, invalid(100, fmt.Sprintf("Param components must have at most %d elements.", maxComponent))
	}
	var n needs
	seen := map[string]bool{}
	for i := range list {
		one := &list[i]
		one.Type, one.Format = strings.ToUpper(one.Type), strings.ToUpper(one.Format)
		stored[i]["type"] = one.Type
		if one.Format != "" {
			stored[i]["format"] = one.Format
		}
		if seen[one.Type] {
			return nil, n, invalid(100, "Param components has two of type "+one.Type)
		}
		seen[one.Type] = true
		if fault := n.take(one, category, format); fault != nil {
			return nil, n, fault
		}
		upperButtons(stored[i])
	}
	if !seen["BODY"] {
		return nil, n, templateFault(subBody, "Body is missing", "A template must have a component of type BODY.")
	}
	raw, err := json.Marshal(stored)
	if err != nil { // it was JSON before
		return nil, n, invalid(100, "Param components is not of the right form")
	}
	return raw, n, nil
}

func upperButtons(component map[string]any) {
	buttons, _ := component["buttons"].([]any)
	for _, b := range buttons {
		if button, ok := b.(map[string]any); ok {
			if kind, ok := button["type"].(string); ok {
				button["type"] = strings.ToUpper(kind)
			}
		}
	}
}

// take checks one component and adds what it needs.
func (n *needs) take(one *component, category, format string) *graphError {
	length := utf8.RuneCountInString(one.Text)
	n.texts += strings.ToLower(one.Text) + "\n"
	switch one.Type {
	case "HEADER":
		return n.takeHeader(one, length)
	case "BODY":
		n.bodyVars = variables(one.Text)
		switch {
		case category == "AUTHENTICATION" && one.Text == "":
			n.bodyVars = []string{"1"} // Meta's own text has the code
			return nil
		case one.Text == "":
			return templateFault(subBody, "Body is missing", "The component of type BODY must have a text.")
		case length > 1024:
			return templateFault(subTooLong, "Character limit exceeded", "The body must be at most 1024 characters long.")
		}
		return checkVariables(one.Text, n.bodyVars, format)
	case "FOOTER":
		switch {
		case category == "AUTHENTICATION" && one.Text == "":
			return nil
		case one.Text == "" || len(variables(one.Text)) > 0 || length > 60:
			return templateFault(subFooter, "Footer format incorrect", "The footer must be from 1 to 60 characters long, without variables.")
		}
		return nil
	case "BUTTONS":
		return n.takeButtons(one)
	case "CAROUSEL":
		if n.cards = len(one.Cards); n.cards < 2 || n.cards > 10 {
			return invalid(100, "A carousel must have from 2 to 10 cards.")
		}
		return nil
	case "LIMITED_TIME_OFFER", "CALL_PERMISSION_REQUEST", "ORDER_STATUS":
		return nil
	}
	return invalid(100, fmt.Sprintf("Param components has the unknown type %.32q", one.Type))
}

func (n *needs) takeHeader(one *component, length int) *graphError {
	n.header = one.Format
	switch one.Format {
	case "TEXT":
		n.headerVars = variables(one.Text)
		if one.Text == "" || length > 60 || len(n.headerVars) > 1 {
			return templateFault(subHeader, "Header format incorrect", "A text header must be from 1 to 60 characters long, with one variable at most.")
		}
	case "IMAGE", "VIDEO", "DOCUMENT", "GIF", "LOCATION", "PRODUCT":
	default:
		return templateFault(subHeader, "Header format incorrect", "The header's format is none that WhatsApp has.")
	}
	return nil
}

func (n *needs) takeButtons(one *component) *graphError {
	if len(one.Buttons) == 0 || len(one.Buttons) > 10 {
		return invalid(100, "A template must have from 1 to 10 buttons.")
	}
	for i, b := range one.Buttons {
		kind := strings.ToUpper(b.Type)
		switch {
		case utf8.RuneCountInString(b.Text) > 25:
			return templateFault(subTooLong, "Character limit exceeded", "A button's text must be at most 25 characters long.")
		case kind == "URL" && len(variables(b.URL)) > 0, kind == "OTP":
			n.buttons = append(n.buttons, buttonNeed{i, "URL"})
		case kind == "COPY_CODE":
			n.buttons = append(n.buttons, buttonNeed{i, "COPY_CODE"})
		}
	}
	return nil
}

// checkVariables checks a body's variables: 1, 2, 3 … or names, as the format says, and
// none at the start or the end.
func checkVariables(text string, names []string, format string) *graphError {
	trimmed := strings.TrimSpace(text)
	at := variable.FindAllStringIndex(trimmed, -1)
	if len(at) > 0 && (at[0][0] == 0 || at[len(at)-1][1] == len(trimmed)) {
		return templateFault(subDangling, "Variable at start or end", "Variables cannot stand at the start or the end of the body.")
	}
	numbers := make([]int, 0, len(names))
	for _, name := range names {
		i, err := strconv.Atoi(name)
		if named := err != nil; named != (format == "NAMED") {
			return templateFault(subBody, "Body format incorrect", "The body's variables are not of the template's parameter_format.")
		}
		numbers = append(numbers, i)
	}
	slices.Sort(numbers)
	for i := range numbers {
		if format != "NAMED" && numbers[i] != i+1 {
			return templateFault(subBody, "Body format incorrect", "The body's variables must be 1, 2, 3 and so on.")
		}
	}
	return nil
}
