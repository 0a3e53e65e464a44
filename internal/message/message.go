// Package message says what a message is: its id, its status and the order of
// statuses, its priority, its category and what happens when a try ends
// without a known outcome. It does no I/O.
package message

import (
	"fmt"
)

// Priority says which of a lane's waiting messages goes first: 1 before 4.
// The numbers are River's. The zero value means that none was given.
type Priority int

// The four priorities, first to last.
const (
	Urgent Priority = 1
	High   Priority = 2
	Normal Priority = 3
	Low    Priority = 4
)

// String gives the word that callers use, or "" for an invalid priority.
func (p Priority) String() string {
	switch p {
	case Urgent:
		return "urgent"
	case High:
		return "high"
	case Normal:
		return "normal"
	case Low:
		return "low"
	}
	return ""
}

// Valid says whether p is one of the four priorities.
func (p Priority) Valid() bool { return p >= Urgent && p <= Low }

// ParsePriority reads urgent, high, normal or low, in exactly this spelling.
func ParsePriority(s string) (Priority, error) {
	for p := Urgent; p <= Low; p++ {
		if p.String() == s {
			return p, nil
		}
	}
	return 0, fmt.Errorf("priority %.20q is not urgent, high, normal or low", s)
}

// Category is what a message is for, in Meta's words. The zero value means
// that it is not known.
type Category string

// Meta's categories.
const (
	Authentication Category = "authentication"
	Utility        Category = "utility"
	Marketing      Category = "marketing"
	Service        Category = "service"
)

// ParseCategory reads a category in exactly the spelling of its constant.
func ParseCategory(s string) (Category, error) {
	switch c := Category(s); c {
	case Authentication, Utility, Marketing, Service:
		return c, nil
	}
	return "", fmt.Errorf("category %.20q is not authentication, utility, marketing or service", s)
}

// OnUnknown says what becomes of a message whose try may or may not have been
// accepted, when the time to learn more is over. The zero value means that
// nothing was said.
type OnUnknown string

// The three policies: keep it for an operator, send it again, or call it failed.
const (
	Hold   OnUnknown = "hold"
	Resend OnUnknown = "resend"
	Fail   OnUnknown = "fail"
)

// ParseOnUnknown reads hold, resend or fail, in exactly this spelling.
func ParseOnUnknown(s string) (OnUnknown, error) {
	switch o := OnUnknown(s); o {
	case Hold, Resend, Fail:
		return o, nil
	}
	return "", fmt.Errorf("on_unknown %.20q is not hold, resend or fail", s)
}

// DefaultPriority gives a message's priority: the one asked for, else the one
// of its category (its own or its template's), else high for a reply, else
// normal.
func DefaultPriority(explicit Priority, category Category, isReply bool) Priority {
	if explicit.Valid() {
		return explicit
	}
	switch category {
	case Authentication:
		return Urgent
	case Utility:
		return Normal
	case Marketing:
		return Low
	case Service:
		// A service message is a reply or it is not: the category adds nothing.
	}
	if isReply {
		return High
	}
	return Normal
}

// DefaultOnUnknown gives a message's policy: the one asked for, else resend
// for an authentication message (the same code twice does no harm, a missing
// one does), else hold.
func DefaultOnUnknown(explicit OnUnknown, category Category) OnUnknown {
	if explicit != "" {
		return explicit
	}
	if category == Authentication {
		return Resend
	}
	return Hold
}
