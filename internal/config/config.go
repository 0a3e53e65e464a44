// Package config turns the environment into a Config. Every setting may also be given as NAME_FILE, the path of a file
// that holds the value (a mounted secret). A wrong or missing setting is an error of one line that names it and never
// shows its value.
package config

import (
	"log/slog"
	"net/netip"
	"time"
)

// Command says which process the settings are for; what is required depends on it.
type Command string

// The commands. `serve --worker` loads as ServeCommand.
const (
	ServeCommand   Command = "serve"
	WorkerCommand  Command = "worker"
	MigrateCommand Command = "migrate"
	// EmbeddedCommand is `serve --embedded`: as serve, without DATABASE_URL.
	EmbeddedCommand Command = "serve --embedded"
	// DevCommand is for demo, dev and the health checks: nothing is required.
	DevCommand Command = "dev"
)

// Config holds every setting, with its preset where none was given.
type Config struct {
	// DatabaseURL (DATABASE_URL) is where Postgres is, as a URL or as keyword=value pairs.
	DatabaseURL Secret
	// PoolSize (WAGATE_POOL_SIZE, 2 to 500, preset 16) bounds the connections of one process to Postgres.
	PoolSize int
	// DataDir (WAGATE_DATA_DIR) is where an embedded Postgres keeps its data; empty means a place of its own choice.
	DataDir string

	// Listen (WAGATE_LISTEN, preset 127.0.0.1:8080) is the address of the HTTP API.
	Listen string
	// ListenGiven says whether WAGATE_LISTEN was set; without it dev takes a free port when the usual one is taken.
	ListenGiven bool
	// WorkerListen (WAGATE_WORKER_LISTEN, preset 127.0.0.1:8081) is the address of a worker's health and metrics.
	WorkerListen string
	// PublicURL (WAGATE_PUBLIC_URL) is the address at which others reach the API; empty when not given.
	PublicURL string
	// MetricsAllow (WAGATE_METRICS_ALLOW) lists the peers that may read /metrics without a key, as addresses or CIDRs;
	// preset: loopback and private networks.
	MetricsAllow []netip.Prefix

	// GraphURL (WAGATE_GRAPH_URL, preset https://graph.facebook.com) is the Cloud API, without a slash at its end.
	GraphURL string
	// GraphVersion (WAGATE_GRAPH_VERSION, preset v23.0) is the version in the Cloud API's paths.
	GraphVersion string
	// PostTimeout (WAGATE_POST_TIMEOUT, 1s to 5m, preset 30s) bounds one POST to the Cloud API.
	PostTimeout time.Duration
	// UnknownAfter (WAGATE_UNKNOWN_AFTER, 1s to 24h, preset 60s) is how long an unknown try waits for a webhook before
	// the message's on_unknown decides.
	UnknownAfter time.Duration

	// Lease (WAGATE_LEASE, 1s to 1m, preset 5s) is how long a worker owns a WABA without a word of it: a dead worker's WABAs
	// stand still that long, and a worker stops sending a second (at most a fifth of it) before it ends unrenewed. All want the same.
	Lease time.Duration

	// BackoffMax (WAGATE_BACKOFF_MAX, 1s to 168h, preset 24h) bounds the pause after a throttle; what Meta itself says of
	// its length is kept to.
	BackoffMax time.Duration

	// SecretKey (WAGATE_SECRET_KEY, base64 of 32 bytes), decoded: the key that seals tokens at rest.
	SecretKey Secret
	// AdminKey (WAGATE_ADMIN_KEY, 16 to 200 printable characters without spaces) is the first API key, with every right.
	AdminKey Secret
	// WebhookVerifyToken (WAGATE_WEBHOOK_VERIFY_TOKEN) answers Meta's handshake; without it every handshake gets 403.
	WebhookVerifyToken Secret
	// IdempotencyKeep (WAGATE_IDEMPOTENCY_KEEP, 1h to 30 days, preset 24h) is how long an idempotency key is kept.
	IdempotencyKeep time.Duration

	// RetentionDays (WAGATE_RETENTION_DAYS, 0 to 3650, preset 0: for ever) is how many days messages, their events and
	// the notifications of Meta are kept.
	RetentionDays int
	// ContentKeep (WAGATE_CONTENT_KEEP: final, or a time such as 12h or 30d; preset: as long as the message) is how long a
	// message keeps its content. That of authentication messages goes at their final status in any case.
	ContentKeep Keep
	// RecipientDays (WAGATE_RECIPIENT_DAYS, 0 to 3650, preset 0: as long as the message) is how many days a message keeps the
	// number of its recipient, and its events.
	RecipientDays int
	// WebhookDays (WAGATE_WEBHOOK_DAYS, 0 to 3650, preset 0: as the others say) is how many days the notifications of Meta
	// are kept.
	WebhookDays int
	// ReportDays (WAGATE_REPORT_DAYS, 0 to 3650, preset 800; 0: for ever) is how many days the reports' roll-ups are kept, and
	// as long as the messages in any case.
	ReportDays int

	// RecipientAllow (WAGATE_RECIPIENT_ALLOW) lists numbers or prefixes, digits only; when not empty, a message to
	// anyone else is not sent.
	RecipientAllow []string
	// CallbackAllow (WAGATE_CALLBACK_ALLOW) lists private hosts or CIDRs that callbacks may reach, also without TLS.
	CallbackAllow []string
	// CallbackLoopback lets callbacks reach this machine without TLS. No setting does: demo and dev are for that.
	CallbackLoopback bool
	// CallbackKeepDays (WAGATE_CALLBACK_KEEP_DAYS, 1 to 90, preset 3) is how many days callbacks that were delivered or given
	// up are kept for replay; never longer than RetentionDays.
	CallbackKeepDays int

	// Media (WAGATE_MEDIA) is the blob store of media, as file:///a/folder or s3://bucket?region=…; empty means that none are kept.
	// Gateways and workers want the same. demo and dev have a folder of their own without it.
	Media string
	// MediaKeep (WAGATE_MEDIA_KEEP, 48h to 10 years, preset 0: until they are deleted) is how long media are kept that nobody uses.
	MediaKeep time.Duration

	// LogLevel (WAGATE_LOG_LEVEL: debug, info, warn, error; preset info).
	LogLevel slog.Level
	// OTLPEndpoint (OTEL_EXPORTER_OTLP_ENDPOINT) is where traces go; empty means nowhere.
	OTLPEndpoint string
}

// Keep is how long something is kept; the zero Keep is as long as what it belongs to.
type Keep struct {
	// AtFinal is until its message has ended.
	AtFinal bool
	// For is a time from its creation; 0 is none.
	For time.Duration
}

// Load reads the settings of a process for which none is required. lookup is os.LookupEnv or a stand-in; a setting that
// is empty counts as not given.
func Load(lookup func(string) (string, bool)) (Config, error) {
	return LoadFor(DevCommand, lookup)
}

// LoadFor reads the settings of a command and tells, in one line, everything that is wrong or missing.
func LoadFor(command Command, lookup func(string) (string, bool)) (Config, error) {
	e := &env{lookup: lookup}
	c := Config{
		DatabaseURL:        e.databaseURL("DATABASE_URL"),
		PoolSize:           e.integer("WAGATE_POOL_SIZE", 16, 2, 500),
		DataDir:            e.text("WAGATE_DATA_DIR", ""),
		Listen:             e.address("WAGATE_LISTEN", "127.0.0.1:8080"),
		ListenGiven:        e.given("WAGATE_LISTEN"),
		WorkerListen:       e.address("WAGATE_WORKER_LISTEN", "127.0.0.1:8081"),
		PublicURL:          e.url("WAGATE_PUBLIC_URL", ""),
		MetricsAllow:       e.prefixes("WAGATE_METRICS_ALLOW", presetMetricsAllow),
		GraphURL:           e.url("WAGATE_GRAPH_URL", "https://graph.facebook.com"),
		GraphVersion:       e.match("WAGATE_GRAPH_VERSION", "v23.0", graphVersion, "must look like v23.0"),
		PostTimeout:        e.duration("WAGATE_POST_TIMEOUT", 30*time.Second, time.Second, 5*time.Minute),
		UnknownAfter:       e.duration("WAGATE_UNKNOWN_AFTER", time.Minute, time.Second, 24*time.Hour),
		Lease:              e.duration("WAGATE_LEASE", 5*time.Second, time.Second, time.Minute),
		BackoffMax:         e.duration("WAGATE_BACKOFF_MAX", 24*time.Hour, time.Second, 168*time.Hour),
		SecretKey:          e.secretKey("WAGATE_SECRET_KEY"),
		AdminKey:           e.adminKey("WAGATE_ADMIN_KEY"),
		WebhookVerifyToken: e.secret("WAGATE_WEBHOOK_VERIFY_TOKEN"),
		IdempotencyKeep:    e.duration("WAGATE_IDEMPOTENCY_KEEP", 24*time.Hour, time.Hour, 30*24*time.Hour),
		RetentionDays:      e.integer("WAGATE_RETENTION_DAYS", 0, 0, 3650),
		ContentKeep:        e.contentKeep("WAGATE_CONTENT_KEEP"),
		RecipientDays:      e.integer("WAGATE_RECIPIENT_DAYS", 0, 0, 3650),
		WebhookDays:        e.integer("WAGATE_WEBHOOK_DAYS", 0, 0, 3650),
		ReportDays:         e.integer("WAGATE_REPORT_DAYS", 800, 0, 3650),
		RecipientAllow:     e.numbers("WAGATE_RECIPIENT_ALLOW"),
		CallbackAllow:      e.hosts("WAGATE_CALLBACK_ALLOW"),
		CallbackKeepDays:   e.integer("WAGATE_CALLBACK_KEEP_DAYS", 3, 1, 90),
		Media:              e.blobStore("WAGATE_MEDIA"),
		MediaKeep:          e.keep("WAGATE_MEDIA_KEEP", 48*time.Hour, 3650*24*time.Hour),
		LogLevel:           e.level("WAGATE_LOG_LEVEL", slog.LevelInfo),
		OTLPEndpoint:       e.url("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
	}
	switch command {
	case ServeCommand, WorkerCommand:
		e.require(command, "DATABASE_URL", c.DatabaseURL.IsSet())
		e.require(command, "WAGATE_SECRET_KEY", c.SecretKey.IsSet())
	case MigrateCommand:
		e.require(command, "DATABASE_URL", c.DatabaseURL.IsSet())
	case EmbeddedCommand:
		e.require(command, "WAGATE_SECRET_KEY", c.SecretKey.IsSet())
	case DevCommand:
	}
	if err := e.err(); err != nil {
		return Config{}, err
	}
	return c, nil
}
