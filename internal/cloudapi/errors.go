package cloudapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// The most bytes that are kept of what Meta says about an error.
const (
	maxErrorWord = 256
	maxErrorText = 2048
)

// Error is an error as Meta reports it, in an answer or in a webhook. Texts
// are clipped to 2048 bytes. Branch on Code (and Details), never on the HTTP
// status, the subcode or a text.
type Error struct {
	Code       int
	Subcode    int    // 0 for none
	Type       string // for example OAuthException
	Title      string // short name of the error
	Message    string
	Details    string // error_data.details
	UserTitle  string // error_user_title
	UserMsg    string // error_user_msg
	FBTraceID  string // for Meta's support
	Href       string // webhooks only
	HTTPStatus int    // of the answer; 0 for an error of a webhook

	IsTransient bool
}

// Error gives code, subcode and title; none of it comes from the message.
func (e *Error) Error() string {
	if e.Subcode != 0 {
		return fmt.Sprintf("cloud api error %d/%d: %s", e.Code, e.Subcode, e.Title)
	}
	return fmt.Sprintf("cloud api error %d: %s", e.Code, e.Title)
}

// Rule looks the error up in the code table.
func (e *Error) Rule() (Rule, bool) { return Lookup(e.Code, e.Subcode) }

// NoMedia says whether an error means that Meta has no media under an id it was given: it has expired, was deleted or belongs to
// another phone number. Meta has no code for that: it says so in the texts of general ones, or with 131053 by webhook.
// (Answers of the Cloud API; its code table does not tell.)
func NoMedia(code int, texts ...string) bool {
	if code != 100 && code != 131009 {
		return false
	}
	for _, s := range texts {
		if s = strings.ToLower(s); strings.Contains(s, "media attachment id") || strings.Contains(s, "media id") {
			return true
		}
	}
	return false
}

// ParseError reads the Graph error of an answer body. It is false when the
// body holds none: no JSON object, no object "error", or one without a code.
func ParseError(status int, body []byte) (*Error, bool) {
	if !isObject(body) || !json.Valid(body) {
		return nil, false
	}
	e, ok := parseErrorObject(member(body, "error"))
	if !ok {
		return nil, false
	}
	e.HTTPStatus = status
	return e, true
}

// parseErrorObject reads an error object of an answer or of a webhook.
func parseErrorObject(b []byte) (*Error, bool) {
	if !isObject(b) {
		return nil, false
	}
	e, hasCode := &Error{}, false
	members(b, func(key, value []byte) bool {
		name, _ := plain(key)
		switch string(name) {
		case "code":
			e.Code, hasCode = number(value)
		case "error_subcode":
			e.Subcode, _ = number(value)
		case "type":
			e.Type = clipped(value, maxErrorWord)
		case "title":
			e.Title = clipped(value, maxErrorWord)
		case "message":
			e.Message = clipped(value, maxErrorText)
		case "error_data":
			e.Details = details(value)
		case "error_user_title":
			e.UserTitle = clipped(value, maxErrorWord)
		case "error_user_msg":
			e.UserMsg = clipped(value, maxErrorText)
		case "fbtrace_id":
			e.FBTraceID = clipped(value, maxErrorWord)
		case "href":
			e.Href = clipped(value, maxErrorWord)
		case "is_transient":
			e.IsTransient = string(value) == "true"
		}
		return true
	})
	if !hasCode {
		return nil, false
	}
	if e.Title == "" {
		e.Title = clip(withoutCode(e.Message, e.Code), maxErrorWord)
	}
	if rule, ok := e.Rule(); ok && e.Title == "" {
		e.Title = rule.Title
	}
	return e, true
}

// withoutCode takes the "(#131056) " off that Graph puts before a message.
func withoutCode(message string, code int) string {
	return strings.TrimSpace(strings.TrimPrefix(message, "(#"+strconv.Itoa(code)+")"))
}

// details reads error_data, which is an object with details, such an object
// written as a string, or a bare text.
func details(b []byte) string {
	if isObject(b) {
		return clipped(member(b, "details"), maxErrorText)
	}
	s, ok := text(b)
	if !ok {
		return ""
	}
	if inner := []byte(s); isObject(inner) && json.Valid(inner) {
		if d := member(inner, "details"); d != nil {
			return clipped(d, maxErrorText)
		}
	}
	return clip(s, maxErrorText)
}

func clipped(b []byte, limit int) string {
	s, _ := text(b)
	return clip(s, limit)
}

// number reads an integer that may be quoted or written with a fraction of zero.
func number(b []byte) (int, bool) {
	s, ok := textOrNumber(b)
	if !ok {
		return 0, false
	}
	s = strings.TrimSpace(s)
	if n, err := strconv.ParseInt(s, 10, 32); err == nil {
		return int(n), true
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > math.MaxInt32 {
		return 0, false
	}
	return int(f), true
}

// SendAnswer is what Meta says to a message it took.
type SendAnswer struct {
	WAMID         string // the message's id, never empty
	WAID          string // the recipient's WhatsApp id; may be empty, and may differ from what was sent
	UserID        string // the recipient's business-scoped user id, where Meta gives it
	MessageStatus string // accepted, held_for_quality_assessment, paused, or empty
}

// Reasons why an answer is no SendAnswer.
var (
	ErrNoMessageID = errors.New("the answer names no message id")
	ErrNotSuccess  = errors.New("the answer's status is no success")
)

// maxID bounds the ids that Meta gives; the known ones have less than 100 bytes.
const maxID = 512

// ParseSendAnswer reads the answer to POST /{phone-number-id}/messages. It
// fails with ErrNotSuccess for a status outside 200-299 and with
// ErrNoMessageID for a body that carries no usable id.
func ParseSendAnswer(status int, body []byte) (SendAnswer, error) {
	if status < 200 || status > 299 {
		return SendAnswer{}, ErrNotSuccess
	}
	if !json.Valid(body) {
		return SendAnswer{}, ErrNoMessageID
	}
	var a SendAnswer
	members(body, func(key, value []byte) bool {
		switch name, _ := plain(key); string(name) {
		case "messages":
			a.WAMID, a.MessageStatus = "", "" // of a key that occurs twice the last counts
			elements(value, func(m []byte) bool {
				a.WAMID, _ = text(member(m, "id"))
				a.MessageStatus = clipped(member(m, "message_status"), maxErrorWord)
				return false // one message a request
			})
		case "contacts":
			a.WAID, a.UserID = "", ""
			elements(value, func(c []byte) bool {
				a.WAID = clipped(member(c, "wa_id"), maxErrorWord)
				a.UserID = clipped(member(c, "user_id"), maxErrorWord)
				return false
			})
		}
		return true
	})
	if a.WAMID == "" || len(a.WAMID) > maxID || clip(a.WAMID, maxID) != a.WAMID {
		return SendAnswer{}, ErrNoMessageID
	}
	return a, nil
}
