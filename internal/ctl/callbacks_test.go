package ctl_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"wagate/internal/store"
)

func TestSubscriptionsAndCallbacks(t *testing.T) {
	r := start(t)
	secrets := filepath.Join(t.TempDir(), "secret")
	own := "whsec_" + strings.Repeat("QUFB", 8)
	if err := os.WriteFile(secrets, []byte(own+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := r.want(0, []string{own}, "subscriptions", "create", "https://app.example.com/hook", "--event", "message.status", "--status", "accepted", "--waba", "100", "--secret-file", secrets)
	found := regexp.MustCompile(`subscription ([0-9a-f-]{36})`).FindStringSubmatch(out)
	if found == nil {
		t.Fatal(out)
	}
	id := found[1]
	r.want(0, []string{id, "active", "waba 100 accepted", "https://app.example.com/hook"}, "subscriptions")
	if out := r.want(0, []string{`"url": "https://app.example.com/hook"`}, "subscriptions", "show", id); strings.Contains(out, own) {
		t.Errorf("the secret is shown again: %s", out)
	}
	if out := r.want(0, []string{"whsec_"}, "subscriptions", "rotate", id, "--overlap-hours", "1"); strings.Contains(out, own) {
		t.Error("rotate printed the old secret")
	}
	r.want(0, []string{"is stopped"}, "subscriptions", "stop", id)
	r.want(0, []string{"is active"}, "subscriptions", "start", id)
	r.want(1, []string{"/url", "WAGATE_CALLBACK_ALLOW"}, "subscriptions", "create", "https://10.1.2.3/hook")
	r.want(2, nil, "subscriptions", "create")
	r.want(2, nil, "subscriptions", "pause", id)

	message := uuid.MustParse(r.send(`{"callback_url":"https://own.example.com/a"}`))
	_, err := r.pool.Exec(t.Context(), `UPDATE messages SET status = 'sending', try = 1`)
	if err == nil {
		err = r.store.InTx(t.Context(), func(tx pgx.Tx) error {
			return r.store.RecordOutcomes(t.Context(), tx, []store.Outcome{{ID: message, Try: 1, Status: "accepted", Event: "try.accepted", WAMID: "wamid.1", At: time.Now()}}, nil)
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	r.want(0, []string{"message.status", "accepted", "waiting", message.String(), id}, "callbacks", "--subscription", id)
	r.want(0, []string{message.String()}, "callbacks", "--to", "https://own.example.com/a", "--state", "waiting")
	if out := r.want(0, nil, "callbacks", "--state", "given_up"); strings.Contains(out, message.String()) {
		t.Errorf("listed %s", out)
	}
	r.want(0, []string{"There are more: --cursor"}, "callbacks", "--limit", "1")
	r.want(0, []string{"https://own.example.com", "closed"}, "callbacks", "hosts")
	r.want(0, []string{"replayed 1 events"}, "callbacks", "replay", "--subscription", id, "--since", "1h")
	r.want(0, []string{"replayed 2 events"}, "callbacks", "replay", "--message", message.String())
	r.want(0, []string{"replayed 0 events"}, "callbacks", "replay", "--to", "https://own.example.com/b", "--since", "1h")
	for _, args := range [][]string{{"replay"}, {"replay", "--subscription", id}, {"--subscription", id, "--message", id}, {"x"}, {"--limit", "0"}, {"replay", "--message", id, "--json"}} {
		r.want(2, nil, append([]string{"callbacks"}, args...)...)
	}
	r.want(0, []string{"is deleted"}, "subscriptions", "delete", id)
	r.want(1, []string{"404"}, "subscriptions", "show", id)
}
