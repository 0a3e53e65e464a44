package main

import (
	"context"
	"time"

	"wagate/internal/simulator"
)

// chaos is a fault that meets a share of the requests or webhooks throughout a cycle.
type chaos struct {
	name  string
	share float64
	set   func(c *simulator.Chaos, share float64)
	// hits says how many messages it has met.
	hits func(l simulator.ChaosCounts) int64
}

func met(f simulator.Fault) func(simulator.ChaosCounts) int64 {
	return func(c simulator.ChaosCounts) int64 { return c.Kinds[f].Messages }
}

var chaoses = []chaos{
	{"reset-unread", 0.025, func(c *simulator.Chaos, v float64) { c.ResetUnread = v }, met(simulator.FaultResetUnread)},
	{"reset-read", 0.025, func(c *simulator.Chaos, v float64) { c.ResetRead = v }, met(simulator.FaultResetRead)},
	{"answer-dropped", 0.03, func(c *simulator.Chaos, v float64) { c.DropAfterAccept = v }, met(simulator.FaultDropAfterAccept)},
	{"answer-slow", 0.025, func(c *simulator.Chaos, v float64) { c.SlowAnswer = v }, met(simulator.FaultSlowAnswer)},
	{"5xx-no-body", 0.025, func(c *simulator.Chaos, v float64) { c.NoBody5xx = v }, met(simulator.FaultNoBody5xx)},
	{"5xx-no-body-accepted", 0.025, func(c *simulator.Chaos, v float64) { c.NoBody5xxAccepted = v }, met(simulator.FaultNoBody5xxAccepted)},
	{"graph-unknown", 0.025, func(c *simulator.Chaos, v float64) { c.GraphUnknown = v }, met(simulator.FaultGraphUnknown)},
	{"webhook-late", 0.05, func(c *simulator.Chaos, v float64) { c.StatusLate, c.StatusLateMS = v, 4000 }, func(c simulator.ChaosCounts) int64 { return c.Late.Messages }},
	{"webhook-twice", 0.05, func(c *simulator.Chaos, v float64) { c.StatusDuplicate, c.StatusDuplicateMS = v, 4000 }, func(c simulator.ChaosCounts) int64 { return c.Duplicated.Messages }},
	{"webhook-reordered", 0.05, func(c *simulator.Chaos, v float64) { c.StatusReorder = v }, func(c simulator.ChaosCounts) int64 { return c.Reordered.Messages }},
	{"webhook-lost", 0.03, func(c *simulator.Chaos, v float64) { c.WebhooksLost = v }, func(c simulator.ChaosCounts) int64 { return c.Lost.Messages }},
}

func chaosNames() []string {
	var names []string
	for _, c := range chaoses {
		names = append(names, c.name)
	}
	return append(names, faultFailedWebhook)
}

const (
	faultFailedWebhook = "webhook-failed"
	// failedWebhooks is how many messages are accepted and then failed by a webhook, with a code that is proof.
	failedWebhooks = 40
)

// unleash sets the chaos that is on.
func (s *stage) unleash() error {
	if s.opt.faults[faultFailedWebhook] {
		if _, err := s.sim.SetError(simulator.ErrorRule{Code: 131000, By: simulator.ByWebhook, Times: failedWebhooks}); err != nil {
			return err
		}
	}
	set := simulator.Chaos{Seed: int64(s.seed)} //nolint:gosec // any seed will do
	for _, c := range chaoses {
		if s.opt.faults[c.name] {
			c.set(&set, c.share)
		}
	}
	return s.sim.SetChaos(set)
}

// countChaos adds what the chaos has met.
func (s *stage) countChaos() {
	counts := s.sim.Ledger().Chaos
	for _, c := range chaoses {
		if s.opt.faults[c.name] {
			s.hits[c.name] = int(c.hits(counts))
		}
	}
	if s.opt.faults[faultFailedWebhook] {
		s.hits[faultFailedWebhook] = int(s.sim.Ledger().Totals.FailuresOnDemand)
	}
	if s.opt.faults[faultOutage] {
		s.hits[faultOutage] = int(counts.KeptBack.Messages)
	}
}

// webhookOutage keeps every webhook back for a time that is long beside the deadline of unknown tries.
func webhookOutage(ctx context.Context, s *stage, _ int) (int, error) {
	outage := time.Duration(6000+s.jitter.IntN(3000)) * time.Millisecond
	s.logf("webhooks are kept back for %v", outage)
	s.sim.Outage(outage)
	pause(ctx, outage)
	return 0, nil // counted at the end
}
