package httpapi

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"wagate/internal/message"
	"wagate/internal/store"
)

const (
	// gaugesKeep is how long what was read for one scrape is good for the next.
	gaugesKeep = 5 * time.Second
	gaugesTime = 2 * time.Second
)

var (
	desiredWorkersDesc = prometheus.NewDesc("wagate_desired_workers", "Workers that the lanes with a backlog need. The same from every gateway.", nil, nil)
	backlogDesc        = prometheus.NewDesc("wagate_backlog", "Messages that wait, about, by phone number and priority. The same from every gateway.", []string{"phone_number_id", "priority"}, nil)
)

// lanesCollector gives the gauges of the lanes: read when they are asked for, at most every 5 s. Only configured phone
// numbers have one.
type lanesCollector struct {
	store  *store.Store
	logger *slog.Logger
	now    func() time.Time

	mu   sync.Mutex
	at   time.Time
	kept lanes
}

func newLanesCollector(s *store.Store, logger *slog.Logger, now func() time.Time) *lanesCollector {
	return &lanesCollector{store: s, logger: logger, now: now}
}

// Describe implements prometheus.Collector.
func (c *lanesCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- desiredWorkersDesc
	ch <- backlogDesc
}

// Collect implements prometheus.Collector. Without the database it gives nothing.
func (c *lanesCollector) Collect(ch chan<- prometheus.Metric) {
	now := c.now()
	l, ok := c.read(now)
	if !ok {
		return
	}
	ch <- prometheus.MustNewConstMetric(desiredWorkersDesc, prometheus.GaugeValue, float64(l.desiredWorkers(now)))
	for _, s := range l.stats {
		for i, n := range s.Waiting {
			ch <- prometheus.MustNewConstMetric(backlogDesc, prometheus.GaugeValue, float64(n), s.PhoneNumberID, message.Priority(i+1).String())
		}
	}
}

func (c *lanesCollector) read(now time.Time) (lanes, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.at.IsZero() && now.Sub(c.at) < gaugesKeep {
		return c.kept, true
	}
	ctx, cancel := context.WithTimeout(context.Background(), gaugesTime)
	defer cancel()
	l, _, err := readLanes(ctx, c.store)
	if err != nil {
		c.logger.Warn("the lanes could not be read for the metrics", "error", err)
		return lanes{}, false
	}
	c.kept, c.at = l, now
	return l, true
}
