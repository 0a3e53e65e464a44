package webhook

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"wagate/internal/pgtest"
)

// Whatever app signed is found and kept, also when another one signs for a WABA from now on.
func TestAnyAppMaySign(t *testing.T) {
	pool := pgtest.New(t)
	apps := []AppSecret{{AppID: "a", Secret: []byte("secret a")}, {AppID: "b", Secret: []byte("secret b")}, {AppID: "c", Secret: []byte("secret c")}}
	r := receiver(t, pool, func(d *Deps) { d.Secrets = func(context.Context) ([]AppSecret, error) { return apps, nil } })
	want := map[string]int{}
	for _, i := range []int{1, 1, 2, 0, 2, 1} {
		for _, body := range [][]byte{change("100", "security", `{}`), change("200", "security", `{}`), []byte(`not even JSON`)} {
			if code := post(t, r, body, sign(body, apps[i].Secret)); code != http.StatusOK {
				t.Fatalf("signed by %s: %d", apps[i].AppID, code)
			}
			want[apps[i].AppID]++
		}
	}
	for app, n := range want {
		if got := scalar[int](t, pool, `SELECT count(*) FROM webhook_raw WHERE app_id = $1`, app); got != n {
			t.Errorf("%d of app %s, want %d", got, app, n)
		}
	}
	body := change("100", "security", `{}`)
	apps = apps[:1] // the one that signed last is gone
	r.mu.Lock()
	r.secretsAt = r.secretsAt.Add(-secretsFor)
	r.mu.Unlock()
	if code := post(t, r, body, sign(body, []byte("secret b"))); code != http.StatusUnauthorized {
		t.Errorf("signed by an app that is gone: %d", code)
	}
}

// Callers who guess among many apps take turns, and are not in the way of those that are known.
func TestGuessesTakeTurns(t *testing.T) {
	var apps []AppSecret
	for i := range fewApps + 1 {
		apps = append(apps, AppSecret{AppID: fmt.Sprint(i), Secret: fmt.Appendf(nil, "secret %d", i)})
	}
	pool := pgtest.New(t)
	r := receiver(t, pool, func(d *Deps) { d.Secrets = func(context.Context) ([]AppSecret, error) { return apps, nil } })
	known, other := change("100", "security", `{}`), change("200", "security", `{}`)
	if code := post(t, r, known, sign(known, apps[3].Secret)); code != http.StatusOK {
		t.Fatal(code)
	}
	r.searching <- struct{}{} // somebody guesses
	if code := post(t, r, known, sign(known, apps[3].Secret)); code != http.StatusOK {
		t.Errorf("a known WABA was answered %d", code)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	req := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", nil)
	if app, ok, err := r.signer(req, other, sign(other, apps[3].Secret)); ok || err == nil {
		t.Errorf("an unknown one was tried beside: %q, %v", app, err)
	}
	<-r.searching
	if code := post(t, r, other, sign(other, apps[3].Secret)); code != http.StatusOK {
		t.Errorf("answered %d when it was its turn", code)
	}
}

func TestWhatIsRememberedOfSignersIsBounded(t *testing.T) {
	r := receiver(t, pgtest.New(t))
	for i := range 2*maxSigners + 10 {
		r.remember(fmt.Sprint(i), "app")
	}
	if n := len(r.signers); n > maxSigners || r.signers[fmt.Sprint(2*maxSigners+9)] != "app" {
		t.Errorf("%d are remembered", n)
	}
}

// BenchmarkSigner looks for the app of a notification of 100 KB.
func BenchmarkSigner(b *testing.B) {
	for _, n := range []int{1, 100} {
		var apps []AppSecret
		for i := range n {
			apps = append(apps, AppSecret{AppID: fmt.Sprint(i), Secret: fmt.Appendf(nil, "the secret of app %d", i)})
		}
		r := New(Deps{Secrets: func(context.Context) ([]AppSecret, error) { return apps, nil }})
		b.Cleanup(r.Close)
		body := append(change("100", "messages", `{}`), make([]byte, 100_000)...)
		req := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/", nil)
		for name, signature := range map[string]string{"Signed": sign(body, apps[n-1].Secret), "Wrong": sign(body, []byte("wrong"))} {
			b.Run(fmt.Sprintf("%s/%dApps", name, n), func(b *testing.B) {
				for b.Loop() {
					if _, ok, err := r.signer(req, body, signature); err != nil || ok != (name == "Signed") {
						b.Fatal(ok, err)
					}
				}
			})
		}
	}
}
