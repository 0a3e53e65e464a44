package upkeep

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	redacted *prometheus.CounterVec
	open     *prometheus.GaugeVec
	to       *prometheus.GaugeVec
	failures prometheus.Counter
	indexes  prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		redacted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "wagate_redacted_messages_total", Help: "Messages from which something was removed before their row, by what: content, authentication (their content), recipient. What went with the final status is not counted.",
		}, []string{"what"}),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "wagate_redaction_open_messages", Help: "Messages that are due and may still be sent: they are looked at again.",
		}, []string{"what"}),
		to: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "wagate_redaction_done_to_timestamp_seconds", Help: "Up to when, by their creation, messages were looked at.",
		}, []string{"what"}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "wagate_upkeep_failures_total", Help: "Steps of the upkeep that failed; they are tried again.",
		}),
		indexes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "wagate_search_indexes_missing", Help: "Indexes of the search that are still to be built.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.redacted, m.open, m.to, m.failures, m.indexes)
	}
	return m
}
