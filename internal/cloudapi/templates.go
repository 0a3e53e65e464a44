package cloudapi

import (
	"slices"
	"time"
)

// maxTemplateName is how long a template's name may be, in bytes.
const maxTemplateName = 512

// TemplateNotice is what a webhook says of one language of a template. What is "" or zero was not said.
type TemplateNotice struct {
	ID       string // Meta's, digits
	Name     string
	Language string
	Event    string // of its status: APPROVED, PAUSED, DISABLED …
	Title    string // of other_info: FIRST_PAUSE, SECOND_PAUSE, RATE_LIMITING_PAUSE, UNPAUSE …
	Reason   string // of a rejection; NONE for none
	Category string // that it has now: MARKETING, UTILITY, AUTHENTICATION
	// NextCategory is one that Meta has announced, from NextCategoryAt on, which may be zero.
	NextCategory   string
	NextCategoryAt time.Time
	Quality        string // GREEN, YELLOW, RED, UNKNOWN
	QualityBefore  string
	Components     bool // its texts or buttons are others now
}

// TemplateUpdate reads a message_template_status_update, message_template_quality_update,
// message_template_components_update or template_category_update. It is false for another field and for a notice that
// names no template or says nothing of it. Source: Meta's webhook reference, templates.
func TemplateUpdate(c Change) (TemplateNotice, bool) {
	word := func(name string) string { return clipped(member(c.Value, name), maxWord) }
	n := TemplateNotice{Name: clipped(member(c.Value, "message_template_name"), maxTemplateName), Language: word("message_template_language")}
	id, _ := textOrNumber(member(c.Value, "message_template_id"))
	n.ID = clip(id, maxWord)
	said := false
	switch c.Field {
	case "message_template_status_update":
		n.Event, n.Reason, n.Category = word("event"), word("reason"), word("message_template_category")
		n.Title = clipped(member(member(c.Value, "other_info"), "title"), maxWord)
		said = n.Event != ""
	case "message_template_quality_update":
		n.Quality, n.QualityBefore = word("new_quality_score"), word("previous_quality_score")
		said = n.Quality != ""
	case "message_template_components_update":
		n.Components, said = true, true
	case "template_category_update":
		// new_category is the one in force, also where correct_category announces another.
		n.Category, n.NextCategory = word("new_category"), word("correct_category")
		if n.NextCategory != "" {
			n.NextCategoryAt = moment(member(c.Value, "category_update_timestamp"))
		}
		said = n.Category != "" || n.NextCategory != ""
	}
	return n, said && n.Name != ""
}

// afterApproval are the statuses that only a template has which was approved before.
var afterApproval = []string{"APPROVED", "FLAGGED", "PAUSED", "DISABLED", "LIMIT_EXCEEDED", "LOCKED", "ARCHIVED", "PENDING_DELETION"}

// WasApproved says whether a template with the status must have been approved at some time.
func WasApproved(status string) bool { return slices.Contains(afterApproval, status) }
