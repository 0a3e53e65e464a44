package simulator

// maxMet bounds the messages remembered by the faults they met.
const maxMet = 1 << 20

// FaultCount is how often a fault was met.
type FaultCount struct {
	Requests int64 `json:"requests"`
	// Messages counts each id of ours once, and requests that showed none one by one. It
	// may count a message again once about a million have met a fault.
	Messages int64 `json:"messages"`
}

// ChaosCounts are what chaos and outages have done since the start or the last reset:
// faults when they were met, what concerns webhooks when it was decided (at the accept;
// kept back: when the status was due, or the outage began).
type ChaosCounts struct {
	// Kinds has all faults.
	Kinds map[Fault]FaultCount `json:"kinds"`
	// Late, Duplicated and Lost are by SetChaos. Reordered counts statuses posted, as
	// planned, after one that comes after them, be it by status_reorder or as they are late.
	Late       WebhookCount `json:"late"`
	Duplicated WebhookCount `json:"duplicated"`
	Reordered  WebhookCount `json:"reordered"`
	Lost       WebhookCount `json:"lost"`
	// KeptBack is by outages; each status counts once.
	KeptBack WebhookCount `json:"kept_back"`
}

// chaosLedger is ChaosCounts as they are counted. The Server's mutex guards it.
type chaosLedger struct {
	faults                            [len(faults)]FaultCount
	met                               map[ourID]uint8 // bit per fault
	late, duplicated, reordered, lost WebhookCount
}

func (c *chaosLedger) meet(fault uint8, id ourID) {
	n := &c.faults[fault]
	n.Requests++
	bit := uint8(1) << fault
	if id != (ourID{}) {
		if c.met[id]&bit != 0 {
			return
		}
		if _, ok := c.met[id]; ok || len(c.met) < maxMet {
			if c.met == nil {
				c.met = map[ourID]uint8{}
			}
			c.met[id] |= bit
		}
	}
	n.Messages++
}

func (c *chaosLedger) view(kept WebhookCount) ChaosCounts {
	out := ChaosCounts{
		Kinds: make(map[Fault]FaultCount, len(faults)-1),
		Late:  c.late, Duplicated: c.duplicated, Reordered: c.reordered, Lost: c.lost, KeptBack: kept,
	}
	for i, f := range faults[1:] {
		out.Kinds[f] = c.faults[i+1]
	}
	return out
}
