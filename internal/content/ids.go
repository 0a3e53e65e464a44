package content

import "encoding/json"

// named are the places in which a message names another one by its id.
var named = [][]string{{"message_id"}, {"context", "message_id"}, {"reaction", "message_id"}}

// IDs gives the ids by which a message names others: of a read receipt, a reply, a reaction; and where they stand, as JSON
// Pointers. Of what is no JSON object it gives none.
func IDs(body []byte) (ids, pointers []string) {
	eachID(body, func(pointer string, v value) {
		ids, pointers = append(ids, string(v.str())), append(pointers, pointer)
	})
	return ids, pointers
}

// ReplaceIDs puts other ids in their place, and leaves every other byte as it is.
func ReplaceIDs(body []byte, with map[string]string) []byte {
	out, from := make([]byte, 0, len(body)+len(with)*64), 0
	eachID(body, func(_ string, v value) {
		id, ok := with[string(v.str())]
		if !ok {
			return
		}
		quoted, _ := json.Marshal(id) // a string always marshals
		out = append(append(out, body[from:v.node().start]...), quoted...)
		from = v.node().end
	})
	return append(out, body[from:]...)
}

// eachID calls f for the ids in the order in which they stand.
func eachID(body []byte, f func(pointer string, v value)) {
	var d doc
	if d.scan(body) != nil || d.bound != "" {
		return
	}
	root := value{&d, 0}
	for m := root.first(); m.there(); m = m.next() {
		for _, path := range named {
			v, pointer := m, "/"+path[0]
			if string(m.node().key) != path[0] {
				continue
			}
			for _, name := range path[1:] {
				v, pointer = v.get(name), pointer+"/"+name
			}
			if v.kind() == text {
				f(pointer, v)
			}
		}
	}
}
