package dispatch

import (
	"testing"
	"time"

	"wagate/internal/sender"
)

func TestAcceptsWhoseWebhooksAreDue(t *testing.T) {
	const width = 30 * time.Second
	base := time.Unix(1_800_000_000, 0) // the start of a span
	at := func(s int) time.Time { return base.Add(time.Duration(s) * time.Second) }
	var a accepts
	if got := a.before(at(0), width); !got.IsZero() {
		t.Errorf("of none: %v", got)
	}
	for _, s := range []int{0, 10, 29, 31, 59} {
		a.add(at(s), width)
	}
	for now, want := range map[int]int{59: -1, 60: 29, 89: 29, 90: 59, 1000: 59} {
		b := accepts{newest: a.newest, span: a.span}
		got := b.before(at(now), width)
		if (want < 0) != got.IsZero() || (want >= 0 && !got.Equal(at(want))) {
			t.Errorf("after %d s: %v, want that of %d s", now, got.Sub(base), want)
		}
	}
	a.add(at(2000), width)
	if got := a.before(at(2001), width); !got.Equal(at(59)) {
		t.Errorf("an old one is forgotten for a new one: %v", got.Sub(base))
	}
}

func TestMessagesThatMetaHoldsAreNoted(t *testing.T) {
	r := newRig(t, newPool(t), "worker-a", nowhere)
	job := r.tried(t)
	run := aRun(job, job.MessageID)
	run.msg.TemplateName = "offer"
	run.ln = &lane{phone: testPhone}
	count := func() (n int) {
		scan(t, r.pool, &n, `SELECT count(*) FROM held_by_meta WHERE phone_number_id = $1::text AND template_name = 'offer'`, testPhone)
		return n
	}
	now := time.Now()
	for _, s := range []string{"", "accepted"} {
		r.awaitWebhooks(t.Context(), run, sender.Outcome{MessageStatus: s}, now)
	}
	if count() != 0 {
		t.Error("an ordinary message was noted")
	}
	r.awaitWebhooks(t.Context(), run, sender.Outcome{MessageStatus: "held_for_quality_assessment"}, now)
	if count() != 1 {
		t.Fatal("a held message was not noted")
	}
	exec(t, r.pool, `DELETE FROM held_by_meta`)
	r.awaitWebhooks(t.Context(), run, sender.Outcome{MessageStatus: "held_for_quality_assessment"}, now.Add(time.Second))
	if count() != 0 {
		t.Error("each of a campaign's messages writes")
	}
	r.awaitWebhooks(t.Context(), run, sender.Outcome{MessageStatus: "paused"}, now.Add(r.cfg.UnknownAfter))
	if count() != 1 {
		t.Error("it is never noted again")
	}
}
