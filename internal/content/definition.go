package content

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"wagate/internal/cloudapi"
)

// Meta's codes of what is wrong with the parameters of a template message. Source: Meta's page on error codes.
const (
	codeMissingParameter = 131008
	codeParameterCount   = 132000
	codeParameterFormat  = 132012
)

// unknownCount is of a text whose variables cannot be told: nothing is asked of its parameters.
const unknownCount = -1

// Template is what sending a template takes, read from its components. It asks for nothing that they do not plainly say: what
// it refuses Meta refuses, and what it lets pass Meta may refuse.
type Template struct {
	part
	named bool // parameters go by name
	cards []part
	// carousel says that there are cards; of product cards only two are defined, and up to ten are sent.
	carousel, products bool
	offer              bool // a limited-time offer with an end
}

// part is a template, or one card of it.
type part struct {
	header     string // its format; "" without one
	headerVars variables
	body       variables
	buttons    []int // the places of those that take a parameter
}

// variables are those of a text.
type variables struct {
	count int // or unknownCount
	names []string
}

// listed is a component as the Graph API lists it.
type listed struct {
	Type    string `json:"type"`
	Format  string `json:"format"`
	Text    string `json:"text"`
	Buttons []struct {
		Type string `json:"type"`
		URL  string `json:"url"`
	} `json:"buttons"`
	Cards []struct {
		Components []listed `json:"components"`
	} `json:"cards"`
	Offer struct {
		HasExpiration bool `json:"has_expiration"`
	} `json:"limited_time_offer"`
}

// ReadTemplate reads components as the Graph API lists them, of a template with the given parameter_format ("" for
// POSITIONAL). The error says that they cannot be read.
func ReadTemplate(components []byte, format string) (*Template, error) {
	var list []listed
	if err := json.Unmarshal(components, &list); err != nil {
		return nil, fmt.Errorf("reading a template's components: %w", err)
	}
	t := &Template{named: strings.EqualFold(format, "NAMED")}
	if !t.named && format != "" && !strings.EqualFold(format, "POSITIONAL") {
		return nil, fmt.Errorf("the parameter format %.20q is not known", format)
	}
	t.part = readPart(list, t.named)
	for i := range list {
		switch e := &list[i]; strings.ToUpper(e.Type) {
		case "CAROUSEL":
			t.carousel = true
			for _, card := range e.Cards {
				p := readPart(card.Components, t.named)
				t.products = t.products || p.header == "PRODUCT"
				t.cards = append(t.cards, p)
			}
		case "LIMITED_TIME_OFFER":
			t.offer = e.Offer.HasExpiration
		}
	}
	return t, nil
}

func readPart(list []listed, named bool) part {
	var p part
	for i := range list {
		e := &list[i]
		switch strings.ToUpper(e.Type) {
		case "HEADER":
			p.header = strings.ToUpper(e.Format)
			if p.header == "" {
				p.header = "UNKNOWN"
			}
			p.headerVars = variablesOf(e.Text, named)
		case "BODY":
			p.body = variablesOf(e.Text, named)
			if e.Text == "" { // a text of Meta's own, with or without a code
				p.body.count = unknownCount
			}
		case "BUTTONS":
			for at, b := range e.Buttons {
				switch strings.ToUpper(b.Type) {
				case "URL":
					if strings.Contains(b.URL, "{{") {
						p.buttons = append(p.buttons, at)
					}
				case "OTP", "COPY_CODE":
					p.buttons = append(p.buttons, at)
				}
			}
		}
	}
	return p
}

// variablesOf finds the {{variables}} of a text, each once. Numbers that are not 1 to n are more than is understood.
func variablesOf(text string, named bool) variables {
	var names []string
	for rest := text; ; {
		_, after, ok := strings.Cut(rest, "{{")
		if !ok {
			break
		}
		name, more, ok := strings.Cut(after, "}}")
		if !ok {
			break
		}
		if name = strings.TrimSpace(name); !slices.Contains(names, name) {
			names = append(names, name)
		}
		rest = more
	}
	v := variables{count: len(names), names: names}
	for i := 1; !named && i <= len(names); i++ {
		if !slices.Contains(names, strconv.Itoa(i)) {
			v.count = unknownCount
		}
	}
	for _, name := range names {
		if name == "" || strings.ContainsAny(name, "{} ") {
			v.count = unknownCount
		}
	}
	return v
}

// Check compares the parameters of a message with what its template takes, and gives every fault with Meta's code. The body
// is one that Check has passed; of what is none it says nothing.
func (t *Template) Check(body []byte) []cloudapi.Fault {
	c, _ := checkers.Get().(*checker) // the pool's New makes nothing else
	defer c.release()
	if c.doc.scan(body) != nil || c.doc.bound != "" {
		return nil
	}
	sent := value{&c.doc, 0}.get("template")
	if sent.kind() != object {
		return nil
	}
	c.definedPart(t.part, t.named, sent)
	var carousel, offer value
	for e := sent.get("components").first(); e.there(); e = e.next() {
		switch e.get("type").pick("carousel", "limited_time_offer") {
		case "carousel":
			carousel = e
		case "limited_time_offer":
			offer = e
		}
	}
	if t.offer && offer.get("parameters").count() == 0 {
		c.coded(codeMissingParameter, sent, offer, "must have the limited_time_offer's expiration_time_ms, which this template takes")
	}
	if t.carousel {
		c.definedCards(t, sent, carousel)
	}
	return c.faults
}

// coded adds a fault at the parameters of a component or, where that was left out, at the components.
func (c *checker) coded(code int, of, component value, format string, args ...any) {
	if !c.room() {
		return
	}
	at := of.pointer() + "/components"
	if component.there() {
		at = component.pointer() + "/parameters"
	}
	c.faults = append(c.faults, cloudapi.Fault{Pointer: at, Detail: fmt.Sprintf(format, args...), Code: code})
}

// definedPart compares the parameters of a template or a card with what it takes.
func (c *checker) definedPart(p part, named bool, sent value) {
	var header, body value
	var filled []int64
	for e := sent.get("components").first(); e.there(); e = e.next() {
		switch e.get("type").pick("header", "body", "button") {
		case "header":
			header = e
		case "body":
			body = e
		case "button":
			if e.get("parameters").count() > 0 {
				filled = append(filled, placeOf(e))
			}
		}
	}
	c.definedHeader(p, named, sent, header)
	c.definedText(p.body, named, "body", sent, body)
	for _, at := range p.buttons {
		if !slices.Contains(filled, int64(at)) {
			c.coded(codeMissingParameter, sent, value{}, "must have a button component with index %d and its parameter, which this template takes", at)
		}
	}
}

// placeOf is the place of a button: its index, which clients that leave out zeros leave out.
func placeOf(button value) int64 {
	index := button.get("index")
	if b := index.str(); len(b) == 1 && isDigits(b) {
		return int64(b[0] - '0')
	}
	n, _ := index.whole()
	return n
}

// headerKinds are the parameters that a header's format takes; the first one is named.
var headerKinds = map[string][]string{
	"IMAGE": {"image"}, "VIDEO": {"video"}, "DOCUMENT": {"document"}, "LOCATION": {"location"}, "PRODUCT": {"product"}, "GIF": {"video", "image"},
}

func (c *checker) definedHeader(p part, named bool, sent, header value) {
	parameters := header.get("parameters")
	kinds, takesOne := headerKinds[p.header]
	switch {
	case p.header == "TEXT":
		c.definedText(p.headerVars, named, "header", sent, header)
	case p.header == "":
		if n := parameters.count(); n > 0 {
			c.coded(codeParameterCount, sent, header, "must be left out: this template's header takes no parameter, and %d came", n)
		}
	case !takesOne: // a format that nobody documents
	case parameters.count() == 0:
		c.coded(codeParameterFormat, sent, header, "must have a header component with a parameter of type %s, which this template takes", kinds[0])
	default:
		kind := parameters.first().get("type")
		if got := kind.pick(parameterTypes...); got != "" && !slices.Contains(kinds, got) && c.room() {
			c.faults = append(c.faults, cloudapi.Fault{Pointer: kind.pointer(), Detail: "must be " + either(kinds) + ", which this template's header takes", Code: codeParameterFormat})
		}
	}
}

// definedText compares the parameters of a text with its variables: by number, and by name where they have names.
func (c *checker) definedText(want variables, named bool, where string, sent, component value) {
	parameters := component.get("parameters")
	n := parameters.count()
	switch {
	case want.count == unknownCount:
		return
	case n != want.count:
		c.coded(codeParameterCount, sent, component, "must have %d parameters for this template's %s, not %d", want.count, where, n)
		return
	case !named:
		return
	}
	for _, name := range want.names {
		found := false
		for e := parameters.first(); e.there(); e = e.next() {
			found = found || string(e.get("parameter_name").str()) == name
		}
		if !found {
			c.coded(codeParameterCount, sent, component, "must have a parameter with the parameter_name %s, which this template's %s takes", name, where)
		}
	}
}

// definedCards compares the cards of a carousel with those of the template.
func (c *checker) definedCards(t *Template, sent, carousel value) {
	cards := carousel.get("cards")
	n := cards.count()
	if t.products {
		for card := cards.first(); card.there(); card = card.next() {
			c.definedPart(t.cards[0], t.named, card)
		}
		return
	}
	if n != len(t.cards) {
		if c.room() {
			at := sent.pointer() + "/components"
			if carousel.there() {
				at = carousel.pointer() + "/cards"
			}
			c.faults = append(c.faults, cloudapi.Fault{Pointer: at, Detail: fmt.Sprintf("must have the %d cards of this template's carousel, not %d", len(t.cards), n), Code: codeParameterCount})
		}
		return
	}
	at := int64(0)
	for card := cards.first(); card.there(); card = card.next() {
		i := at
		if index := card.get("card_index"); index.filled() {
			var ok bool
			if i, ok = index.whole(); !ok {
				return // in a form that nobody documents
			}
		}
		if i >= 0 && i < int64(len(t.cards)) {
			c.definedPart(t.cards[i], t.named, card)
		}
		at++
	}
}
