package messages

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"wagate/internal/cloudapi"
	"wagate/internal/content"
)

// Numbers reserved for fiction: +1 NPA 555 0100-0199 and Ofcom's 07700 900xxx.
var reserved = regexp.MustCompile(`^\+(120255501[0-9]{2}|447700900[0-9]{3})$`)

func TestEveryExamplePasses(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 70 {
		t.Fatalf("only %d examples", len(all))
	}
	const token = "g1:019a0000-0000-7000-8000-0123456789ab:1"
	kinds := map[string]bool{}
	for _, e := range all {
		envelope, faults, err := content.Check(e.Body, content.Options{Strict: true})
		if err != nil || len(faults) > 0 {
			t.Errorf("%s: %v, %v", e.Name, faults, err)
			continue
		}
		parts := strings.Split(e.Name, ".")
		kinds[parts[0]] = true
		if envelope.Type != parts[0] {
			t.Errorf("%s is of type %s", e.Name, envelope.Type)
		}
		if !reserved.MatchString(envelope.To) {
			t.Errorf("%s goes to a number that is not reserved for fiction", e.Name)
		}
		if (envelope.Type == "template") && (envelope.TemplateName == "" || envelope.TemplateLang == "") {
			t.Errorf("%s: template %q in %q", e.Name, envelope.TemplateName, envelope.TemplateLang)
		}
		if parts[0] == "interactive" {
			kinds["interactive."+parts[1]] = true
			var m struct{ Interactive struct{ Type string } }
			if err := json.Unmarshal(e.Body, &m); err != nil || m.Interactive.Type != parts[1] {
				t.Errorf("%s is of subtype %s (%v)", e.Name, m.Interactive.Type, err)
			}
		}
		out, err := cloudapi.BuildOutbound(e.Body, token, cloudapi.Overrides{})
		if err != nil {
			t.Errorf("%s: %v", e.Name, err)
			continue
		}
		var sent struct {
			To     string
			Opaque string `json:"biz_opaque_callback_data"`
		}
		if err := json.Unmarshal(out, &sent); err != nil || sent.To != envelope.To || sent.Opaque != token {
			t.Errorf("%s goes out as %s (%v)", e.Name, out, err)
		}
	}
	for _, want := range []string{
		"text", "image", "audio", "video", "document", "sticker", "location", "contacts", "reaction", "template",
		"interactive.button", "interactive.list", "interactive.cta_url", "interactive.flow", "interactive.product",
		"interactive.product_list", "interactive.catalog_message", "interactive.location_request_message",
		"interactive.address_message", "interactive.call_permission_request", "interactive.voice_call",
		"interactive.carousel", "interactive.order_details", "interactive.order_status",
	} {
		if !kinds[want] {
			t.Errorf("no example of %s", want)
		}
	}
}
