package simulator

import (
	"maps"
	"slices"
	"time"
)

const (
	maxBlocked    = 64_000 // users of a phone number (Meta's limit)
	maxBlockUsers = 1000   // users of one request
	maxWrote      = 100_000
	wroteIn       = 24 * time.Hour // who wrote in this time can be blocked
)

// wrote remembers until when a user can be said to have written to a phone number; of too
// many the new ones are not remembered.
func (p *phone) heard(waID string, last time.Duration) {
	n := p.change()
	if n.wrote == nil {
		n.wrote = map[string]time.Duration{}
	}
	if _, known := n.wrote[waID]; known || len(n.wrote) < maxWrote {
		n.wrote[waID] = max(n.wrote[waID], last)
	}
}

type blockedUser struct {
	Input  string      `json:"input"`
	WaID   string      `json:"wa_id"`
	Errors []userError `json:"errors,omitempty"`
}

type userError struct {
	Message   string        `json:"message"`
	Code      int           `json:"code"`
	ErrorData hookErrorData `json:"error_data"`
}

// users reads whom a call blocks or unblocks.
func (c *call) users() []string {
	c.product()
	var in []struct {
		User string `json:"user"`
	}
	c.object("block_users", &in)
	switch {
	case c.fault != nil:
	case len(in) == 0:
		c.wrong(100, "The parameter block_users is required.")
	case len(in) > maxBlockUsers:
		c.wrong(130429, "Too many users in the request.")
	}
	out := make([]string, 0, len(in))
	for _, u := range in {
		if len(u.User) > 64 || digitsOf(u.User) == "" {
			c.wrong(100, "Param block_users has a user without a number.")
		}
		out = append(out, u.User)
	}
	return out
}

// blockUsers blocks those it can; if it cannot block all it says both, whom it blocked
// and error 139100.
func (s *Server) blockUsers(c *call) (any, *graphError) {
	p, fault := s.numberOf(c)
	if fault != nil {
		return nil, fault
	}
	users := c.users()
	if c.fault != nil {
		return nil, c.fault
	}
	n := p.change()
	added, failed := []blockedUser{}, []blockedUser{}
	for _, input := range users {
		u := blockedUser{Input: input, WaID: waIDOf(digitsOf(input))}
		last, wrote := n.wrote[u.WaID]
		var why *graphError
		switch {
		case u.WaID == waIDOf(digitsOf(p.display)):
			why = coded(131021, 0, "A number cannot block itself.")
		case !wrote || last <= c.now-wroteIn:
			why = coded(131047, 0, "The user has not written to this number in the last 24 hours.")
		case !n.blocked[u.WaID] && len(n.blocked) >= maxBlocked:
			why = coded(139101, 0, "The block list is full.")
		}
		if why != nil {
			u.Errors = []userError{{why.message, why.code, hookErrorData{why.details}}}
			failed = append(failed, u)
			continue
		}
		if n.blocked == nil {
			n.blocked = map[string]bool{}
		}
		n.blocked[u.WaID] = true
		added = append(added, u)
	}
	result := map[string]any{"added_users": added}
	body := map[string]any{"messaging_product": "whatsapp", "block_users": result}
	if len(failed) == 0 {
		return body, nil
	}
	result["failed_users"] = failed
	some := coded(139100, 0, "Failed to block some users, see the block_users response list for details")
	body["error"] = s.errorOf(some)
	return answerWith{some.status, body}, nil
}

func (s *Server) unblockUsers(c *call) (any, *graphError) {
	p, fault := s.numberOf(c)
	if fault != nil {
		return nil, fault
	}
	users := c.users()
	if c.fault != nil {
		return nil, c.fault
	}
	removed := []blockedUser{}
	for _, input := range users {
		u := blockedUser{Input: input, WaID: waIDOf(digitsOf(input))}
		delete(p.change().blocked, u.WaID)
		removed = append(removed, u)
	}
	return map[string]any{"messaging_product": "whatsapp", "block_users": map[string]any{"removed_users": removed}}, nil
}

func (s *Server) listBlocked(c *call) (any, *graphError) {
	p, fault := s.numberOf(c)
	if fault != nil {
		return nil, fault
	}
	all := slices.Sorted(maps.Keys(p.state().blocked))
	return page(c, all, func(id string) string { return id }, maxPage, func(id string) any {
		return map[string]string{"messaging_product": "whatsapp", "wa_id": id}
	})
}
