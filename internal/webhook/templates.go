package webhook

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"wagate/internal/cloudapi"
	"wagate/internal/store"
)

// statusOf gives the status that a template has after an event.
func statusOf(t cloudapi.TemplateNotice) string {
	switch event := strings.ToUpper(t.Event); {
	case event == "":
		return ""
	case resumed(t.Title), event == "REINSTATED", event == "UNPAUSED", event == "UNARCHIVED":
		return "APPROVED"
	default:
		return event
	}
}

func resumed(title string) bool { return title == "UNPAUSE" || title == "UNPAUSED" }

// wordOf is what the store keeps of a notice.
func wordOf(t ofWABA[cloudapi.TemplateNotice]) store.TemplateWord {
	status := clean(statusOf(t.is))
	w := store.TemplateWord{
		WABAID: t.waba, Name: clean(t.is.Name), Language: strings.ReplaceAll(clean(t.is.Language), "-", "_"), // some notices write en-US; messages have en_US
		MetaID: clean(t.is.ID), At: t.at, Status: status, Reason: clean(t.is.Reason), Category: clean(strings.ToUpper(t.is.Category)),
		NextCategory: clean(strings.ToUpper(t.is.NextCategory)), NextCategoryAt: t.is.NextCategoryAt,
		Quality: clean(strings.ToUpper(t.is.Quality)), QualityBefore: clean(strings.ToUpper(t.is.QualityBefore)),
		Components: t.is.Components, Approved: cloudapi.WasApproved(status),
	}
	// A template that is reviewed has been written: its components may be others.
	switch status {
	case "PENDING", "REJECTED":
		w.Components = true
	case "APPROVED":
		w.Components = w.Components || !resumed(t.is.Title) && t.is.Event == "APPROVED"
	}
	return w
}

// followTemplates keeps what is said of templates, each template's newest word; holds the messages of one that Meta has paused
// or disabled, and lets them go when it is back.
func (r *Receiver) followTemplates(ctx context.Context, tx pgx.Tx, all []payload) error {
	var told []ofWABA[cloudapi.TemplateNotice]
	for i := range all {
		told = append(told, all[i].notices.templates...)
	}
	if len(told) == 0 {
		return nil
	}
	slices.SortStableFunc(told, func(a, b ofWABA[cloudapi.TemplateNotice]) int { // in one order, so that two appliers do not wait for each other
		return cmp.Or(strings.Compare(a.waba, b.waba), strings.Compare(a.is.Name, b.is.Name), strings.Compare(a.is.Language, b.is.Language), a.at.Compare(b.at))
	})
	words := make([]store.TemplateWord, len(told))
	for i, t := range told {
		words[i] = wordOf(t)
	}
	heard, err := r.deps.Store.HearTemplates(ctx, tx, words)
	if err != nil {
		return err
	}
	for i, h := range heard {
		r.tellTemplate(ctx, words[i], h)
		if words[i].Status == "" || (h.Known && !h.News) {
			continue
		}
		if err := r.followTemplate(ctx, tx, words[i], told[i].is.Title); err != nil {
			return err
		}
	}
	return nil
}

// tellTemplate says what is new in the log and the metrics.
func (r *Receiver) tellTemplate(ctx context.Context, w store.TemplateWord, h store.HeardTemplate) {
	if h.News {
		r.metrics.templates.WithLabelValues("status").Inc()
		r.log.InfoContext(ctx, "the status of a template", "waba_id", w.WABAID, "template", w.Name, "language", w.Language, "status", w.Status, "reason", w.Reason)
	}
	if h.QualityDropped {
		r.metrics.templates.WithLabelValues("lower_quality").Inc()
		r.log.WarnContext(ctx, "the quality of a template has dropped", "waba_id", w.WABAID, "template", w.Name, "language", w.Language, "quality", w.Quality, "before", w.QualityBefore)
	}
	if h.CategoryBefore != "" {
		r.metrics.templates.WithLabelValues("category").Inc()
		r.log.WarnContext(ctx, "the category of a template is another", "waba_id", w.WABAID, "template", w.Name, "language", w.Language, "category", w.Category, "before", h.CategoryBefore)
	}
	if h.Known && w.NextCategory != "" && w.NextCategory != w.Category {
		r.log.WarnContext(ctx, "the category of a template will be another", "waba_id", w.WABAID, "template", w.Name, "language", w.Language, "category", w.NextCategory, "at", w.NextCategoryAt)
	}
	if h.Known && w.Components {
		r.metrics.templates.WithLabelValues("components").Inc()
	}
}

// followTemplate holds the messages of a template, or lets them go, by its newest status.
func (r *Receiver) followTemplate(ctx context.Context, tx pgx.Tx, w store.TemplateWord, title string) error {
	var until time.Time // until it is lifted
	code := codeTemplatePaused
	switch {
	case w.Status == "APPROVED":
		lifted, err := r.deps.Store.LiftTemplate(ctx, tx, w.WABAID, w.Name, w.Language)
		if err != nil {
			return err
		}
		r.lifted(ctx, lifted, "template", w.WABAID+":"+w.Name)
		return nil
	case w.Status == "PAUSED" && title == "FIRST_PAUSE":
		until = w.At.Add(firstPause)
	case w.Status == "PAUSED" && title == "SECOND_PAUSE":
		until = w.At.Add(secondPause)
	case w.Status == "PAUSED":
	case w.Status == "DISABLED", w.Status == "DELETED", w.Status == "PENDING_DELETION", w.Status == "REJECTED", w.Status == "ARCHIVED":
		code = codeTemplateDisabled
	default:
		return nil
	}
	return r.keepNoticed(ctx, tx, templateKey(w.WABAID, w.Name, w.Language), until, code, "Template is "+strings.ToLower(w.Status))
}
