package simulator

import (
	"fmt"
	"slices"
	"strings"
)

// libraryTemplate is a ready-made template, in the shape of Meta's library.
type libraryTemplate struct {
	Name     string          `json:"name"`
	Language string          `json:"language"`
	Category string          `json:"category"`
	Topic    string          `json:"topic"`
	Usecase  string          `json:"usecase"`
	Industry []string        `json:"industry"`
	Header   string          `json:"header,omitempty"`
	Body     string          `json:"body"`
	Params   []string        `json:"body_params,omitempty"`
	Types    []string        `json:"body_param_types,omitempty"`
	Buttons  []libraryButton `json:"buttons,omitempty"`
	ID       string          `json:"id"`
}

type libraryButton struct {
	Type  string `json:"type"`
	Text  string `json:"text"`
	URL   string `json:"url,omitempty"`
	Phone string `json:"phone_number,omitempty"`
}

// library is a small one of our own texts, by id.
var library = []libraryTemplate{
	{
		ID: "7000000000000001", Name: "delivery_update_1", Language: "en_US", Category: "UTILITY", Topic: "ORDER_MANAGEMENT", Usecase: "DELIVERY_UPDATE",
		Industry: []string{"E_COMMERCE"}, Header: "News of your parcel",
		Body:   "Hello {{1}}, your order {{2}} comes on {{3}}. We will write again when it is at your door.",
		Params: []string{"Ana", "#12345", "5 May"}, Types: []string{"TEXT", "TEXT", "DATE"},
		Buttons: []libraryButton{{Type: "URL", Text: "Track it", URL: "https://www.example.com/"}},
	},
	{
		ID: "7000000000000002", Name: "delivery_update_1", Language: "pt_BR", Category: "UTILITY", Topic: "ORDER_MANAGEMENT", Usecase: "DELIVERY_UPDATE",
		Industry: []string{"E_COMMERCE"}, Header: "Sua encomenda",
		Body:   "Olá {{1}}, seu pedido {{2}} chega em {{3}}. Avisaremos quando estiver na sua porta.",
		Params: []string{"Ana", "#12345", "5 de maio"}, Types: []string{"TEXT", "TEXT", "DATE"},
		Buttons: []libraryButton{{Type: "URL", Text: "Acompanhar", URL: "https://www.example.com/"}},
	},
	{
		ID: "7000000000000003", Name: "low_balance_warning_1", Language: "en_US", Category: "UTILITY", Topic: "PAYMENTS", Usecase: "LOW_BALANCE_WARNING",
		Industry: []string{"FINANCIAL_SERVICES"}, Header: "Your balance is low",
		Body:   "Hello {{1}}, there are {{2}} left in your account that ends in {{3}}.",
		Params: []string{"Ana", "$75.00", "1234"}, Types: []string{"TEXT", "AMOUNT", "NUMBER"},
		Buttons: []libraryButton{{Type: "URL", Text: "Pay in", URL: "https://www.example.com/"}, {Type: "PHONE_NUMBER", Text: "Call us", Phone: "+16505550100"}},
	},
	{
		ID: "7000000000000004", Name: "feedback_survey_1", Language: "en_US", Category: "UTILITY", Topic: "CUSTOMER_FEEDBACK", Usecase: "FEEDBACK_SURVEY",
		Industry: []string{"E_COMMERCE", "FINANCIAL_SERVICES"},
		Body:     "Thank you for your visit on {{1}}. Would you tell us how it was?",
		Params:   []string{"5 May"}, Types: []string{"DATE"},
	},
}

// listLibrary answers GET /message_template_library, with or without a WABA before it.
func (s *Server) listLibrary(c *call) (any, *graphError) {
	if c.id != libraryPath && s.scopes.wabas[c.id] == nil {
		return nil, errUnknownObject
	}
	search := strings.ToLower(strings.Trim(c.text("search"), `"`))
	name, topic, usecase, industry, language := c.text("name"), c.text("topic"), c.text("usecase"), c.text("industry"), c.text("language")
	all := []libraryTemplate{}
	for _, t := range library {
		text := strings.ToLower(t.Name + "\n" + t.Header + "\n" + t.Body + "\n" + t.Topic)
		switch {
		case search != "" && !strings.Contains(text, search), name != "" && t.Name != name,
			topic != "" && t.Topic != topic, usecase != "" && t.Usecase != usecase, language != "" && t.Language != language,
			industry != "" && !slices.Contains(t.Industry, industry):
			continue
		}
		all = append(all, t)
	}
	return page(c, all, func(t libraryTemplate) string { return t.ID }, maxPage, func(t libraryTemplate) any { return t })
}

// fromLibrary makes a template of one in the library and the buttons that a call gives.
func (t *template) fromLibrary(c *call, name string) *graphError {
	var inputs []struct {
		Type string `json:"type"`
		URL  struct {
			Base string `json:"base_url"`
		} `json:"url"`
		Phone string `json:"phone_number"`
	}
	c.object("library_template_button_inputs", &inputs)
	language := c.text("language")
	i := slices.IndexFunc(library, func(l libraryTemplate) bool { return l.Name == name && l.Language == language })
	switch {
	case c.fault != nil:
		return c.fault
	case i < 0:
		return invalid(100, fmt.Sprintf("The library has no template %.64q in that language.", name))
	}
	from := library[i]
	if t.category != from.Category {
		return invalid(100, "Param category must be one of {"+from.Category+"}")
	}
	list := []map[string]any{}
	if from.Header != "" {
		list = append(list, map[string]any{"type": "HEADER", "format": "TEXT", "text": from.Header})
		t.needs.header = "TEXT"
	}
	list = append(list, map[string]any{"type": "BODY", "text": from.Body, "example": map[string]any{"body_text": [][]string{from.Params}}})
	t.needs.bodyVars, t.needs.texts = variables(from.Body), strings.ToLower(from.Header+"\n"+from.Body)
	if len(from.Buttons) > 0 {
		if len(inputs) != len(from.Buttons) {
			return invalid(100, fmt.Sprintf("Param library_template_button_inputs must have %d elements.", len(from.Buttons)))
		}
		buttons := slices.Clone(from.Buttons)
		for k := range buttons {
			b := &buttons[k]
			switch in := inputs[k]; {
			case !strings.EqualFold(in.Type, b.Type):
				return invalid(100, "Param library_template_button_inputs is not of the template's buttons.")
			case b.Type == "URL" && in.URL.Base == "", b.Type == "PHONE_NUMBER" && in.Phone == "":
				return invalid(100, "Param library_template_button_inputs lacks an address or a number.")
			default:
				b.URL, b.Phone = in.URL.Base, in.Phone
			}
			if len(variables(b.URL)) > 0 {
				t.needs.buttons = append(t.needs.buttons, buttonNeed{k, "URL"})
			}
		}
		list = append(list, map[string]any{"type": "BUTTONS", "buttons": buttons})
	}
	t.library, t.components = from.Name, rawJSON(list)
	return nil
}
