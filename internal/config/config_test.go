package config

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func from(m map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := m[name]; return v, ok }
}

var key32 = base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))

func TestPresets(t *testing.T) {
	c, err := Load(from(nil))
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:8080" || c.ListenGiven || c.GraphURL != "https://graph.facebook.com" || c.GraphVersion != "v23.0" ||
		c.PostTimeout != 30*time.Second || c.UnknownAfter != time.Minute || c.Lease != 5*time.Second || c.PoolSize != 16 || c.LogLevel != slog.LevelInfo ||
		c.IdempotencyKeep != 24*time.Hour || len(c.MetricsAllow) != 6 {
		t.Errorf("presets: %+v", c)
	}
}

func TestValues(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(key32+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := LoadFor(ServeCommand, from(map[string]string{
		"DATABASE_URL":           "postgres://u:pw@db/x",
		"WAGATE_SECRET_KEY_FILE": file,
		"WAGATE_LISTEN":          ":9000",
		"WAGATE_GRAPH_URL":       "http://127.0.0.1:9/",
		"WAGATE_RECIPIENT_ALLOW": "+16505551234, 39 +49",
		"WAGATE_CALLBACK_ALLOW":  "10.0.0.0/8,app.internal",
		"WAGATE_LOG_LEVEL":       "DEBUG",
		"WAGATE_POST_TIMEOUT":    "5s",
	}))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(c.SecretKey.Bytes(), bytes.Repeat([]byte{7}, 32)) {
		t.Error("the key of the file was not taken")
	}
	if c.Listen != ":9000" || !c.ListenGiven || c.GraphURL != "http://127.0.0.1:9" || c.LogLevel != slog.LevelDebug || c.PostTimeout != 5*time.Second {
		t.Errorf("values: %+v", c)
	}
	if got := strings.Join(c.RecipientAllow, " "); got != "16505551234 39 49" {
		t.Errorf("RecipientAllow = %q", got)
	}
	if got := strings.Join(c.CallbackAllow, " "); got != "10.0.0.0/8 app.internal" {
		t.Errorf("CallbackAllow = %q", got)
	}
}

func TestFaultsNameTheSettingInOneLine(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	db := "postgres://u:pw@db/x"
	for _, c := range []struct {
		name    string
		command Command
		env     map[string]string
		want    []string
	}{
		{"serve, nothing", ServeCommand, nil, []string{"DATABASE_URL", "WAGATE_SECRET_KEY"}},
		{"worker without key", WorkerCommand, map[string]string{"DATABASE_URL": db}, []string{"WAGATE_SECRET_KEY"}},
		{"migrate", MigrateCommand, nil, []string{"DATABASE_URL"}},
		{"empty counts as missing", MigrateCommand, map[string]string{"DATABASE_URL": ""}, []string{"DATABASE_URL"}},
		{"embedded", EmbeddedCommand, nil, []string{"WAGATE_SECRET_KEY"}},
		{"both", DevCommand, map[string]string{"WAGATE_ADMIN_KEY": "hunter2-hunter2-hunter2", "WAGATE_ADMIN_KEY_FILE": "/x"}, []string{"WAGATE_ADMIN_KEY"}},
		{"file away", DevCommand, map[string]string{"WAGATE_ADMIN_KEY_FILE": "/does/not/exist"}, []string{"WAGATE_ADMIN_KEY_FILE"}},
		{"file empty", DevCommand, map[string]string{"WAGATE_ADMIN_KEY_FILE": empty}, []string{"WAGATE_ADMIN_KEY_FILE"}},
		{"database url", DevCommand, map[string]string{"DATABASE_URL": "mysql://u:hunter2@db/x"}, []string{"DATABASE_URL"}},
		{"database url odd", DevCommand, map[string]string{"DATABASE_URL": "postgres://u:hunter2%zz@db/x"}, []string{"DATABASE_URL"}},
		{"key short", DevCommand, map[string]string{"WAGATE_SECRET_KEY": "aHVudGVyMg=="}, []string{"WAGATE_SECRET_KEY"}},
		{"admin key short", DevCommand, map[string]string{"WAGATE_ADMIN_KEY": "hunter2"}, []string{"WAGATE_ADMIN_KEY"}},
		{"listen", DevCommand, map[string]string{"WAGATE_LISTEN": "8080"}, []string{"WAGATE_LISTEN"}},
		{"port", DevCommand, map[string]string{"WAGATE_WORKER_LISTEN": ":70000"}, []string{"WAGATE_WORKER_LISTEN"}},
		{"graph", DevCommand, map[string]string{"WAGATE_GRAPH_URL": "graph.facebook.com", "WAGATE_GRAPH_VERSION": "23"}, []string{"WAGATE_GRAPH_URL", "WAGATE_GRAPH_VERSION"}},
		{"durations", DevCommand, map[string]string{"WAGATE_POST_TIMEOUT": "30", "WAGATE_UNKNOWN_AFTER": "-1s"}, []string{"WAGATE_POST_TIMEOUT", "WAGATE_UNKNOWN_AFTER"}},
		{"content without a unit", DevCommand, map[string]string{"WAGATE_CONTENT_KEEP": "30"}, []string{"WAGATE_CONTENT_KEEP"}},
		{"content at no time", DevCommand, map[string]string{"WAGATE_CONTENT_KEEP": "0d"}, []string{"WAGATE_CONTENT_KEEP"}},
		{"days", DevCommand, map[string]string{"WAGATE_CONTENT_KEEP": "d", "WAGATE_RECIPIENT_DAYS": "-1", "WAGATE_WEBHOOK_DAYS": "4000"}, []string{"WAGATE_CONTENT_KEEP", "WAGATE_RECIPIENT_DAYS", "WAGATE_WEBHOOK_DAYS"}},
		{"pool", DevCommand, map[string]string{"WAGATE_POOL_SIZE": "0"}, []string{"WAGATE_POOL_SIZE"}},
		{"allow", DevCommand, map[string]string{"WAGATE_RECIPIENT_ALLOW": "+1650,bob"}, []string{"WAGATE_RECIPIENT_ALLOW"}},
		{"callback", DevCommand, map[string]string{"WAGATE_CALLBACK_ALLOW": "http://x/"}, []string{"WAGATE_CALLBACK_ALLOW"}},
		{"metrics", DevCommand, map[string]string{"WAGATE_METRICS_ALLOW": "somewhere"}, []string{"WAGATE_METRICS_ALLOW"}},
		{"level", DevCommand, map[string]string{"WAGATE_LOG_LEVEL": "loud"}, []string{"WAGATE_LOG_LEVEL"}},
		{"otel", DevCommand, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "collector"}, []string{"OTEL_EXPORTER_OTLP_ENDPOINT"}},
	} {
		_, err := LoadFor(c.command, from(c.env))
		if err == nil {
			t.Errorf("%s: no error", c.name)
			continue
		}
		msg := err.Error()
		if strings.Contains(msg, "\n") || strings.Contains(msg, "hunter2") || strings.Contains(msg, "aHVudGVyMg") {
			t.Errorf("%s: more than one line, or the value is shown: %q", c.name, msg)
		}
		for _, w := range c.want {
			if !strings.Contains(msg, w+" ") {
				t.Errorf("%s: %q does not name %s", c.name, msg, w)
			}
		}
	}
}

func TestKeep(t *testing.T) {
	for value, want := range map[string]Keep{"": {}, "final": {AtFinal: true}, "12h": {For: 12 * time.Hour}, "30d": {For: 720 * time.Hour}, " 3650d\n": {For: 3650 * 24 * time.Hour}} {
		if c, err := Load(from(map[string]string{"WAGATE_CONTENT_KEEP": value})); err != nil || c.ContentKeep != want {
			t.Errorf("%q: %+v, %v", value, c.ContentKeep, err)
		}
	}
}

func TestSecretIsNeverPrinted(t *testing.T) {
	const value = "hunter2"
	s := NewSecret(value)
	c := Config{AdminKey: s}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("settings", "config", c, "key", s)
	slog.New(slog.NewTextHandler(&log, nil)).Info("settings", "config", c, "key", s)
	asJSON, err := json.Marshal(map[string]any{"c": c, "s": s, "p": &s})
	if err != nil {
		t.Fatal(err)
	}
	out := log.String() + string(asJSON) + s.String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		out += fmt.Sprintf(verb+verb+verb, s, &s, c)
	}
	for _, leak := range []string{value, fmt.Sprintf("%x", value), fmt.Sprintf("%X", value)} {
		if strings.Contains(out, leak) {
			t.Errorf("the value is shown: %s", out)
		}
	}
	if !strings.Contains(out, hidden) || s.Value() != value {
		t.Errorf("Secret does not work at all: %s", out)
	}
}

func TestTheStoreOfMedia(t *testing.T) {
	for value, ok := range map[string]bool{
		"file:///srv/media": true, "s3://bucket": true, "s3://bucket?region=eu-south-1&endpoint=http://minio:9000&use_path_style=true": true,
		"/srv/media": false, "file://media": false, "file:///": false, "file:///a?b=c": false, "s3://": false, "s3://bucket/folder": false,
		"s3://key:secret@bucket": false, "gs://bucket": false, "mem://": false,
	} {
		c, err := Load(from(map[string]string{"WAGATE_MEDIA": value}))
		if ok && (err != nil || c.Media != value) {
			t.Errorf("%s: %q, %v", value, c.Media, err)
		}
		if !ok && (err == nil || !strings.Contains(err.Error(), "WAGATE_MEDIA must be file:///") || strings.Contains(err.Error(), "secret@")) {
			t.Errorf("%s: %v", value, err)
		}
	}
	for value, want := range map[string]time.Duration{"": 0, "0": 0, "48h": 48 * time.Hour, "2160h": 2160 * time.Hour, "47h": -1, "-1h": -1, "soon": -1} {
		c, err := Load(from(map[string]string{"WAGATE_MEDIA_KEEP": value}))
		if want >= 0 && (err != nil || c.MediaKeep != want) {
			t.Errorf("%s: %v, %v", value, c.MediaKeep, err)
		}
		if want < 0 && (err == nil || !strings.Contains(err.Error(), "WAGATE_MEDIA_KEEP must be 0 or")) {
			t.Errorf("%s: %v", value, err)
		}
	}
}
