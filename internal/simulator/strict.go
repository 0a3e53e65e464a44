package simulator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// objection is what management has against a message: an error to answer, or a rule by
// which it is accepted and fails. The caller holds the lock.
func (s *Server) objection(p *phone, m *message, arrival time.Duration) (*graphError, *errorRule) {
	if own := p.own; own != nil {
		switch {
		case own.unregistered:
			return coded(133010, 0, "The phone number is not registered."), nil
		case own.blocked[m.waID]:
			return errBlocked(m.waID), nil
		}
	}
	g := s.managed
	g.decide(arrival)
	if g.strictTemplates && m.typ == "template" {
		if fault := s.checkSend(p, m); fault != nil {
			return fault, nil
		}
	}
	if len(g.media) == 0 && !g.strictMedia && !g.links.Fail {
		return nil, nil
	}
	return g.checkFiles(p, m, arrival)
}

// mediaKinds are the objects of a message that carry a file by id or link.
var mediaKinds = []string{"audio", "document", "image", "sticker", "video"}

// fileRef is a file in a message, and where in it.
type fileRef struct{ path, id, link string }

// filesOf finds all files in a message's content.
func filesOf(typ string, content json.RawMessage) []fileRef {
	var v any
	if json.Unmarshal(content, &v) != nil {
		return nil
	}
	var out []fileRef
	walkFiles(typ, typ, v, &out)
	return out
}

func walkFiles(path, key string, v any, out *[]fileRef) {
	switch v := v.(type) {
	case []any:
		for i, one := range v {
			walkFiles(fmt.Sprintf("%s[%d]", path, i), "", one, out)
		}
	case map[string]any:
		if slices.Contains(mediaKinds, key) {
			id, _ := v["id"].(string)
			link, _ := v["link"].(string)
			if id != "" || link != "" {
				*out = append(*out, fileRef{path, id, link})
			}
			return
		}
		for name, one := range v {
			walkFiles(path+"['"+name+"']", name, one, out)
		}
	}
}

// checkFiles looks at a message's files: an id that is over fails, by webhook unless by
// answer is wanted; one that never was the number's is refused where files must be ours;
// a link fails by webhook where links are to fail.
func (m *managed) checkFiles(p *phone, msg *message, now time.Duration) (*graphError, *errorRule) {
	if msg.typ != "template" && msg.typ != "interactive" && !slices.Contains(mediaKinds, msg.typ) {
		return nil, nil
	}
	for _, ref := range filesOf(msg.typ, msg.content) {
		f := m.media[ref.id]
		gone := f != nil && !f.live(now)
		switch {
		case gone && m.goneBy == ByWebhook:
			return nil, mediaFailure("The media with this id does not exist any more.")
		case ref.id != "" && (gone || m.strictMedia && (f == nil || f.phone != p.id)):
			return &graphError{
				status: http.StatusBadRequest, code: 100, details: "Upload the file again.",
				message: "(#100) Param " + ref.path + "['id'] is not a valid whatsapp business account media attachment ID",
			}, nil
		case ref.link != "" && m.links.Fail && strings.Contains(ref.link, m.links.Containing):
			return nil, mediaFailure("The media could not be downloaded from its link.")
		}
	}
	return nil, nil
}

// mediaFailure lets an accepted message fail with 131053.
func mediaFailure(details string) *errorRule {
	return newRule(0, ErrorRule{Code: 131053, Details: details, By: ByWebhook})
}

type sentTemplate struct {
	Name     string `json:"name"`
	Language struct {
		Code string `json:"code"`
	} `json:"language"`
	Components []sentComponent `json:"components"`
}

type sentComponent struct {
	Type       string            `json:"type"`
	SubType    string            `json:"sub_type"`
	Index      any               `json:"index"`
	Parameters []sentParameter   `json:"parameters"`
	Cards      []json.RawMessage `json:"cards"`
}

type sentParameter struct {
	Type string `json:"type"`
	Name string `json:"parameter_name"`
}

// checkSend checks a template message against the templates of the number's WABA.
func (s *Server) checkSend(p *phone, m *message) *graphError {
	var sent sentTemplate
	if json.Unmarshal(m.content, &sent) != nil {
		return invalid(132012, "The template's components are not of the right form.")
	}
	var t *template
	for _, one := range s.managed.templates {
		if one.waba == p.waba.id && one.name == sent.Name && one.language == sent.Language.Code {
			t = one
		}
	}
	missing := coded(132001, 0, fmt.Sprintf("template name (%.64s) does not exist in %.16s", sent.Name, sent.Language.Code))
	switch {
	case t == nil:
		return missing
	case t.status == templatePaused:
		return coded(132015, 0, "The template is paused for its low quality.")
	case t.status == templateDisabled:
		return coded(132016, 0, "The template is disabled for its low quality.")
	case t.status != templateApproved:
		return missing
	case m.marketing && t.category != "MARKETING":
		return coded(134100, 0, "Only marketing templates can be sent this way.")
	}
	return t.checkParameters(sent.Components)
}

// checkParameters compares the number of parameters sent with what the template takes.
func (t *template) checkParameters(sent []sentComponent) *graphError {
	var header, body []sentParameter
	buttons, cards := map[string]int{}, 0
	for _, one := range sent {
		switch strings.ToLower(one.Type) {
		case "header":
			header = one.Parameters
		case "body":
			body = one.Parameters
		case "button":
			buttons[fmt.Sprint(one.Index)+strings.ToUpper(one.SubType)] += len(one.Parameters)
		case "carousel":
			cards = len(one.Cards)
		}
	}
	if fault := t.checkHeader(header); fault != nil {
		return fault
	}
	if fault := t.checkTexts("body", body, t.needs.bodyVars); fault != nil {
		return fault
	}
	for _, b := range t.needs.buttons {
		if buttons[fmt.Sprint(b.index)+b.subType] != 1 {
			return coded(131008, 0, fmt.Sprintf("buttons: Button at index %d of type %s requires a parameter", b.index, b.subType))
		}
	}
	if cards != t.needs.cards {
		return coded(132000, 0, fmt.Sprintf("carousel: number of cards (%d) does not match the expected number of cards (%d)", cards, t.needs.cards))
	}
	return nil
}

func (t *template) checkHeader(sent []sentParameter) *graphError {
	switch want := t.needs.header; want {
	case "", "TEXT":
		return t.checkTexts("header", sent, t.needs.headerVars)
	default:
		if len(sent) != 1 {
			return coded(132012, 0, fmt.Sprintf("header: Format mismatch, expected %s, received UNKNOWN", want))
		}
		kind := strings.ToUpper(sent[0].Type)
		if kind != want && (want != "GIF" || kind != "VIDEO") {
			return coded(132012, 0, fmt.Sprintf("header: Format mismatch, expected %s, received %.32s", want, kind))
		}
	}
	return nil
}

func (t *template) checkTexts(where string, sent []sentParameter, want []string) *graphError {
	if len(sent) != len(want) {
		return coded(132000, 0, fmt.Sprintf("%s: number of localizable_params (%d) does not match the expected number of params (%d)", where, len(sent), len(want)))
	}
	if t.format != "NAMED" {
		return nil
	}
	for _, name := range want {
		if !slices.ContainsFunc(sent, func(p sentParameter) bool { return p.Name == name }) {
			return coded(132000, 0, fmt.Sprintf("%s: the parameter named %.64s is missing", where, name))
		}
	}
	return nil
}

// errBlocked refuses a message to a user on the phone number's block list.
func errBlocked(waID string) *graphError {
	return coded(130403, 0, fmt.Sprintf("The user whose number ends in %04d is blocked by this phone number.", lastFour(waID)))
}
