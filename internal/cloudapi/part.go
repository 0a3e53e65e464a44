package cloudapi

import "slices"

// Parted is a value of the field messages that was read once, to give its elements one by one: it may have thousands.
type Parted struct {
	head     []byte // messaging_product and metadata
	contacts [][]byte
	of       map[string][]int // by wa_id and user_id, which of the contacts
}

// Part reads a value. It keeps hold of it.
func Part(value []byte) *Parted {
	p := &Parted{of: map[string][]int{}}
	members(value, func(key, v []byte) bool {
		switch name, _ := plain(key); string(name) {
		case "messaging_product", "metadata":
			p.head = appendRaw(p.head, string(name), v)
		case "contacts":
			elements(v, func(c []byte) bool {
				for _, name := range []string{"wa_id", "user_id"} {
					if id, ok := textOrNumber(member(c, name)); ok && id != "" {
						p.of[id] = append(p.of[id], len(p.contacts))
					}
				}
				p.contacts = append(p.contacts, c)
				return true
			})
		}
		return true
	})
	return p
}

// Alone gives the value with one element of its list, "messages" or "statuses", alone: the others are left out, and the
// contacts of others, and errors that belong to none.
func (p *Parted) Alone(list string, element []byte) []byte {
	var its []int
	for _, name := range []string{"from", "recipient_id", "from_user_id", "recipient_user_id"} {
		if id, ok := textOrNumber(member(element, name)); ok {
			its = append(its, p.of[id]...)
		}
	}
	out := make([]byte, 1, len(p.head)+len(element)+512)
	out[0] = '{'
	out = append(out, p.head...)
	if len(its) > 0 {
		slices.Sort(its)
		var contacts [][]byte
		for _, n := range slices.Compact(its) {
			contacts = append(contacts, p.contacts[n])
		}
		out = appendRaw(out, "contacts", asList(contacts...))
	}
	return append(appendRaw(out, list, asList(element)), '}')
}

func appendRaw(to []byte, key string, value []byte) []byte {
	if len(to) > 0 && to[len(to)-1] != '{' {
		to = append(to, ',')
	}
	return append(append(append(append(to, '"'), key...), `":`...), value...)
}

func asList(elements ...[]byte) []byte {
	list := []byte{'['}
	for i, e := range elements {
		if i > 0 {
			list = append(list, ',')
		}
		list = append(list, e...)
	}
	return append(list, ']')
}
