package cloudapi

import (
	"strconv"
	"strings"
	"time"
)

// The most that is kept of one notice.
const (
	maxInbound     = 1000
	maxPreferences = 1000
)

// InboundMessage is a message that a user sent: who, to which phone number, when.
type InboundMessage struct {
	PhoneNumberID string
	From          string // wa_id, digits; empty where the user has a username only
	FromUserID    string // business-scoped user id; may be empty
	GroupID       string // empty outside groups; what is written in a group opens no window with its writer
	ID            string // wamid
	Timestamp     time.Time
	Type          string // text, image …; "system" is Meta's own notice about the user, who has written nothing
	MediaID       string // of an image, audio, video, document or sticker; else empty
	NewWAID       string // of a system message that says that the user's number, From, is another now; else empty
	Raw           []byte // the element as it came, part of the body
	// Said are the texts by which the message may be a keyword.
	Said []string
}

// Inbound gives the messages of users in a change, but for elements without an id;
// none for fields other than messages. Source: Meta's webhook reference, messages.
func Inbound(c Change) []InboundMessage {
	if c.Field != "messages" {
		return nil
	}
	phoneID, _ := metadata(c.Value)
	var all []InboundMessage
	elements(member(c.Value, "messages"), func(b []byte) bool {
		id := clipped(member(b, "id"), maxID)
		if id == "" {
			return true
		}
		from, _ := textOrNumber(member(b, "from"))
		group, _ := textOrNumber(member(b, "group_id"))
		kind := clipped(member(b, "type"), maxWord)
		var media string
		switch kind {
		case "image", "audio", "video", "document", "sticker":
			media, _ = textOrNumber(member(member(b, kind), "id"))
		}
		var newID string
		if system := member(b, "system"); kind == "system" && clipped(member(system, "type"), maxWord) == "user_changed_number" {
			if newID, _ = textOrNumber(member(system, "wa_id")); newID == "" {
				newID, _ = textOrNumber(member(system, "new_wa_id")) // until version 12
			}
		}
		all = append(all, InboundMessage{
			PhoneNumberID: phoneID, From: clip(from, maxRecipient), FromUserID: clipped(member(b, "from_user_id"), maxRecipient), GroupID: clip(group, maxRecipient),
			ID: id, Timestamp: moment(member(b, "timestamp")), Type: kind, MediaID: clip(media, maxWord), Raw: b,
			NewWAID: clip(newID, maxRecipient), Said: said(b, kind),
		})
		return len(all) < maxInbound
	})
	return all
}

// ValueErrors gives the errors of a change that belong to no message, and the
// phone number they concern. Source: Meta's webhook reference, errors.
func ValueErrors(c Change) (phoneNumberID string, errs []Error) {
	if c.Field != "messages" {
		return "", nil
	}
	errs = errorList(member(c.Value, "errors"))
	if len(errs) == 0 {
		return "", nil
	}
	phoneNumberID, _ = metadata(c.Value)
	return phoneNumberID, errs
}

// QualityNotice is a change of field phone_number_quality_update.
type QualityNotice struct {
	DisplayPhoneNumber string
	Event              string // ONBOARDING, THROUGHPUT_UPGRADE, FLAGGED, UNFLAGGED …
	MaxDaily           string // TIER_250 …; may be empty
}

// PhoneQuality reads a phone_number_quality_update.
func PhoneQuality(c Change) (QualityNotice, bool) {
	if c.Field != "phone_number_quality_update" {
		return QualityNotice{}, false
	}
	display, _ := textOrNumber(member(c.Value, "display_phone_number"))
	tier, _ := textOrNumber(member(c.Value, "max_daily_conversations_per_business"))
	if tier == "" {
		tier = clipped(member(c.Value, "current_limit"), maxWord) // older notices have it there
	}
	n := QualityNotice{clip(display, maxWord), clipped(member(c.Value, "event"), maxWord), clip(tier, maxWord)}
	return n, n.Event != ""
}

// Capability reads a business_capability_update: the unique recipients a day of
// the portfolio, as a tier or a number.
func Capability(c Change) (maxDaily string, ok bool) {
	if c.Field != "business_capability_update" {
		return "", false
	}
	for _, name := range []string{"max_daily_conversations_per_business", "max_daily_conversation_per_phone"} {
		if s, found := textOrNumber(member(c.Value, name)); found && s != "" {
			return clip(s, maxWord), true
		}
	}
	return "", false
}

// TierLimit gives the unique recipients in 24 hours of a tier's word, or of a
// plain number (-1 is Meta's for unlimited). ok is false for anything else, also
// TIER_NOT_SET. Source: Meta's page on messaging limits.
func TierLimit(tier string) (n int, unlimited, ok bool) {
	switch tier {
	case "TIER_50":
		return 50, false, true
	case "TIER_250":
		return 250, false, true
	case "TIER_1K":
		return 1000, false, true
	case "TIER_2K":
		return 2000, false, true
	case "TIER_10K":
		return 10_000, false, true
	case "TIER_100K":
		return 100_000, false, true
	case "TIER_UNLIMITED":
		return 0, true, true
	}
	n, err := strconv.Atoi(tier)
	switch {
	case err != nil || n == 0 || n < -1 || n > 1_000_000_000:
		return 0, false, false
	case n == -1:
		return 0, true, true
	}
	return n, false, true
}

// Preference is what a user wants to get or no longer.
type Preference struct {
	WAID     string
	UserID   string // business-scoped user id; may be empty, as WAID may then
	Category string // marketing_messages
	Stop     bool   // else resume
	At       time.Time
}

// UserPreferences reads a user_preferences notice; what is neither stop nor
// resume is left out.
func UserPreferences(c Change) []Preference {
	if c.Field != "user_preferences" {
		return nil
	}
	var all []Preference
	elements(member(c.Value, "user_preferences"), func(b []byte) bool {
		id, _ := textOrNumber(member(b, "wa_id"))
		value := strings.ToLower(clipped(member(b, "value"), maxWord))
		userID := clipped(member(b, "user_id"), maxRecipient)
		if (id != "" || userID != "") && (value == "stop" || value == "resume") {
			all = append(all, Preference{clip(id, maxRecipient), userID, clipped(member(b, "category"), maxWord), value == "stop", moment(member(b, "timestamp"))})
		}
		return len(all) < maxPreferences
	})
	return all
}
