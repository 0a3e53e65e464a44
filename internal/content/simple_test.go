package content_test

import (
	"strings"
	"testing"
)

func TestText(t *testing.T) {
	check(t, message("text"), "/text", []rule{
		{part: `{"body":"hello"}`},
		{part: `{"body":"hello","preview_url":true,"unknown":[1,{"a":null}]}`},
		{part: `{"body":" ","preview_url":null}`},
		{part: `{"body":"` + x(4096) + `"}`},
		{part: `{"body":"\ud83d\ude00\n` + x(4094) + `"}`},
		{`{"body":"` + x(4097) + `"}`, "/body", "at most 4096 characters, not 4097"},
		{`{"body":"\ud83d\ude00\n` + x(4095) + `"}`, "/body", "at most 4096 characters, not 4097"},
		{`{"body":""}`, "/body", "empty"},
		{`{"body":null}`, "/body", "required"},
		{`{}`, "/body", "required"},
		{`{"body":42,"preview_url":1}`, "/body /preview_url", "string"},
		{`"hello"`, ".", "object"},
		{`null`, ".", "required"},
	})
}

func TestMedia(t *testing.T) {
	for _, kind := range []string{"image", "audio", "video", "document", "sticker"} {
		check(t, message(kind), "/"+kind, []rule{
			{part: `{"id":"1013859600285441"}`},
			{part: `{"link":"https://media.example.com/a b?c=ü"}`},
			{part: `{"link":"HTTP://media.example.com","id":""}`},
			{part: `{"link":"http://[::1]/a","id":null}`},
			{`{"id":"1","link":"https://media.example.com/a"}`, ".", "not both"},
			{`{}`, ".", "an id or a link"},
			{`{"id":"","link":null}`, ".", "an id or a link"},
			{part: `{"id":1013859600285441}`},
			{`{"id":7.5}`, "/id", "string"},
			{`{"id":-7}`, "/id", "string"},
			{`{"id":7,"link":"https://media.example.com/a"}`, ".", "not both"},
			{`{"link":{}}`, "/link", "string"},
			{`{"link":"ftp://media.example.com/a"}`, "/link", "https://"},
			{`{"link":"/a.jpg"}`, "/link", "https://"},
			{`{"link":"https://"}`, "/link", "host"},
			{`{"link":"https:///a"}`, "/link", "host"},
			{`{"link":"https:// media.example.com"}`, "/link", "host"},
			{`{"link":"https://?a"}`, "/link", "host"},
			{`{"link":"https://#a"}`, "/link", "host"},
			{`{"link":"https://:80"}`, "/link", "host"},
			{`{"link":"media.example.com/a"}`, "/link", "https://"},
			{`[]`, ".", "object"},
		})
	}
	for _, kind := range []string{"image", "video", "document"} {
		check(t, message(kind), "/"+kind, []rule{
			{part: `{"id":"1","caption":"` + x(1024) + `"}`},
			{part: `{"id":"1","caption":null}`},
			{`{"id":"1","caption":"` + x(1025) + `"}`, "/caption", "at most 1024 characters, not 1025"},
			{`{"id":"1","caption":1}`, "/caption", "string"},
		})
	}
	check(t, message("audio"), "/audio", []rule{
		{part: `{"id":"1","voice":true,"caption":""}`},
		{`{"id":"1","voice":"yes"}`, "/voice", "true or false"},
		{`{"id":"1","caption":"c"}`, "/caption", "no caption"},
	})
	check(t, message("document"), "/document", []rule{
		{part: `{"id":"1","filename":"a.pdf"}`},
		{`{"id":"1","filename":["a.pdf"]}`, "/filename", "string"},
	})
}

func TestLocation(t *testing.T) {
	check(t, message("location"), "/location", []rule{
		{part: `{"latitude":37.5,"longitude":-122,"name":"n","address":"a"}`},
		{part: `{"latitude":"37.5","longitude":"-1.22e2"}`},
		{part: `{"latitude":" +1","longitude":0,"name":null}`},
		{part: `{"latitude":1,"longitude":1` + strings.Repeat("0", 63) + `}`},
		{`{"longitude":0}`, "/latitude", "required"},
		{`{"latitude":null,"longitude":""}`, "/latitude /longitude", "required"},
		{`{"latitude":"north","longitude":"0x10"}`, "/latitude /longitude", "number"},
		{`{"latitude":"NaN","longitude":1e999}`, "/latitude /longitude", "number"},
		{`{"latitude":1` + strings.Repeat("0", 64) + `,"longitude":[0]}`, "/latitude /longitude", "number"},
		{`{"latitude":1,"longitude":2,"name":3,"address":{}}`, "/name /address", "string"},
	})
}

func TestContacts(t *testing.T) {
	const one = `{"name":{"formatted_name":"Night Line"}}`
	check(t, message("contacts"), "/contacts", []rule{
		{part: `[` + one + `]`},
		{part: `[{"name":{"formatted_name":"Night Line","first_name":null,"suffix":""},"birthday":"2012-08-18","org":{"company":"c"},` +
			`"addresses":[{"street":"s","state":""}],"emails":[{"email":"e"}],"phones":[{"phone":"+1","wa_id":"1"}],"urls":[{"url":"u"}]}]`},
		{part: `[{"name":{"formatted_name":"n"},"birthday":"","phones":null,"org":null}]`},
		{part: `[{"name":{"formatted_name":"n"},"birthday":"1999-01-01"},{"name":{"formatted_name":"n"},"birthday":"1999-12-31"}]`},
		{part: `[` + repeat(257, one) + `]`},
		{`[` + repeat(258, one) + `]`, ".", "1 to 257 contacts, not 258"},
		{`[]`, ".", "1 to 257 contacts, not 0"},
		{`{}`, ".", "array"},
		{`"none"`, ".", "array"},
		{`"[{]"`, ".", "array"},
		{`"{}"`, ".", "array"},
		{`["x",` + one + `]`, "/0", "object"},
		{`[{}]`, "/0/name", "required"},
		{`[{"name":"n"}]`, "/0/name", "object"},
		{`[` + one + `,{"name":{"first_name":"f"}}]`, "/1/name/formatted_name", "required"},
		{`[{"name":{"formatted_name":"","prefix":1}}]`, "/0/name/formatted_name /0/name/prefix", "empty"},
		{`[{"name":{"formatted_name":"n"},"birthday":"18/08/2012"}]`, "/0/birthday", "YYYY-MM-DD"},
		{`[{"name":{"formatted_name":"n"},"birthday":"2012-13-01"}]`, "/0/birthday", "YYYY-MM-DD"},
		{`[{"name":{"formatted_name":"n"},"birthday":"2012-12-32"}]`, "/0/birthday", "YYYY-MM-DD"},
		{`[{"name":{"formatted_name":"n"},"birthday":"2012-00-00"}]`, "/0/birthday", "YYYY-MM-DD"},
		{`[{"name":{"formatted_name":"n"},"birthday":"2012-8-18"}]`, "/0/birthday", "YYYY-MM-DD"},
		{`[{"name":{"formatted_name":"n"},"birthday":"2012-08-189"}]`, "/0/birthday", "YYYY-MM-DD"},
		{`[{"name":{"formatted_name":"n"},"org":{"company":1,"department":2,"title":3}}]`, "/0/org/company /0/org/department /0/org/title", "string"},
		{`[{"name":{"formatted_name":"n"},"birthday":20120818}]`, "/0/birthday", "string"},
		{`[{"name":{"formatted_name":"n"},"phones":{"phone":"1"},"org":"o"}]`, "/0/org /0/phones", "object"},
		{`[{"name":{"formatted_name":"n"},"addresses":[{"city":1}],"emails":[{"email":1}],"phones":[{"phone":1}],"urls":[{"url":1}]}]`,
			"/0/addresses/0/city /0/emails/0/email /0/phones/0/phone /0/urls/0/url", "string"},
	})
}

func TestReaction(t *testing.T) {
	check(t, message("reaction"), "/reaction", []rule{
		{part: `{"message_id":"wamid.1","emoji":"👍"}`},
		{part: `{"message_id":"wamid.1","emoji":"\ud83d\ude00"}`},
		{part: `{"message_id":"wamid.1","emoji":"1️⃣"}`},
		{part: `{"message_id":"wamid.1","emoji":"ℹ️"}`},
		{part: `{"message_id":"wamid.1","emoji":"🏴󠁧󠁢󠁥󠁮󠁧󠁿"}`},
		{part: `{"message_id":"wamid.1","emoji":"👩‍👩‍👧‍👦"}`},
		{part: `{"message_id":"wamid.1","emoji":""}`},
		{`{"message_id":"wamid.1","emoji":"thumbs up"}`, "/emoji", "emoji"},
		{`{"message_id":"wamid.1","emoji":"привет"}`, "/emoji", "emoji"},
		{`{"message_id":"wamid.1","emoji":":)"}`, "/emoji", "emoji"},
		{`{"message_id":"wamid.1","emoji":"👍 "}`, "/emoji", "emoji"},
		{`{"message_id":"wamid.1","emoji":1}`, "/emoji", "string"},
		{`{"message_id":"wamid.1"}`, "/emoji", "required"},
		{`{"emoji":"👍"}`, "/message_id", "required"},
	})
	check(t, `{"to":"+12025550101","type":"reaction","reaction":{"message_id":"wamid.1","emoji":"👍"},"context":$}`, "/context", []rule{
		{part: `null`},
		{`{"message_id":"wamid.2"}`, ".", "quotes no message"},
	})
}
