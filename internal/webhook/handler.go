package webhook

import (
	"context"
	"errors"
	"io"
	"net/http"
	"regexp"
	"slices"
	"time"

	"wagate/internal/cloudapi"
	"wagate/internal/message"
	"wagate/internal/store"
)

const (
	// readWait bounds the arrival of a body.
	readWait = 10 * time.Second
	// signatureHeader holds Meta's HMAC-SHA256 of the raw body.
	signatureHeader = "X-Hub-Signature-256"
)

// Handler serves the webhook address: GET is Meta's handshake, POST a notification. A notification is answered with 200
// once it is committed, with 401 when no app's secret signed it, with 413 over 4 MiB, and with 503 when the database is
// away, whereupon Meta posts it again.
func (r *Receiver) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch req.Method {
		case http.MethodGet:
			r.handshake(w, req)
		case http.MethodPost:
			status, result := r.receive(w, req)
			r.metrics.payloads.WithLabelValues(result).Inc()
			if status == http.StatusServiceUnavailable {
				w.Header().Set("Retry-After", "1")
			}
			w.WriteHeader(status)
		default:
			w.Header().Set("Allow", "GET, POST")
			w.WriteHeader(http.StatusMethodNotAllowed)
		}
	})
}

func (r *Receiver) handshake(w http.ResponseWriter, req *http.Request) {
	challenge, ok := cloudapi.VerifyHandshake(req.URL.Query(), r.deps.VerifyToken)
	if !ok {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = io.WriteString(w, challenge)
}

// smallBody is what a notification of some hundred statuses stays under.
const smallBody = 64 << 10

var signatureForm = regexp.MustCompile(`^sha256=[0-9A-Fa-f]{64}$`)

// receive takes one notification in and gives the answer and its name among the metrics. Nothing of a body is logged.
func (r *Receiver) receive(w http.ResponseWriter, req *http.Request) (status int, result string) {
	ctx := req.Context()
	signature := req.Header.Get(signatureHeader)
	if !signatureForm.MatchString(signature) {
		return http.StatusUnauthorized, "unsigned"
	}
	if req.ContentLength > cloudapi.MaxNotification {
		return http.StatusRequestEntityTooLarge, "too_large"
	}
	// Large bodies take turns; the many small ones need no turn, so that callers that send nothing more shut nobody out.
	if req.ContentLength < 0 || req.ContentLength > smallBody {
		wait := time.NewTimer(keepWait)
		defer wait.Stop()
		select {
		case r.room <- struct{}{}:
			defer func() { <-r.room }()
		case <-wait.C:
			return http.StatusServiceUnavailable, "busy"
		case <-ctx.Done():
			return http.StatusServiceUnavailable, "gone"
		}
	}

	// Not every writer knows deadlines (a recorder in a test does not); the server's own then bound the read.
	control := http.NewResponseController(w)
	bounded := control.SetReadDeadline(time.Now().Add(readWait)) == nil
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, cloudapi.MaxNotification))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return http.StatusRequestEntityTooLarge, "too_large"
		}
		return http.StatusBadRequest, "cut"
	}
	if bounded {
		_ = control.SetReadDeadline(time.Time{})
	}

	app, ok, err := r.signer(req, body, signature)
	switch {
	case err != nil:
		r.log.WarnContext(ctx, "webhook not taken in: its signature cannot be checked", "error", err)
		return http.StatusServiceUnavailable, "unavailable"
	case !ok:
		r.log.WarnContext(ctx, "webhook refused: no app's secret signed it", "bytes", len(body))
		return http.StatusUnauthorized, "wrong_signature"
	}
	if _, err := r.keep.Do(ctx, store.RawWebhook{ID: message.NewID(time.Now()), AppID: app, Body: body}); err != nil {
		r.log.WarnContext(ctx, "webhook not taken in", "app_id", app, "error", err)
		return http.StatusServiceUnavailable, "unavailable"
	}
	return http.StatusOK, "kept"
}

// maxSigners bounds the WABAs of which it is remembered whose app signs for them.
const maxSigners = 10_000

// firstEntry finds the WABA of a notification near its beginning, where Meta writes it: a hint, which need not be right.
var firstEntry = regexp.MustCompile(`"entry"\s*:\s*\[\s*\{\s*"id"\s*:\s*"?([0-9]{1,32})`)

// signer finds the app whose secret signed the body. The app that signed for the same WABA last is tried first: with many apps
// each try costs a pass over the body.
func (r *Receiver) signer(req *http.Request, body []byte, signature string) (appID string, ok bool, err error) {
	waba := ""
	if found := firstEntry.FindSubmatch(body[:min(len(body), 512)]); found != nil {
		waba = string(found[1])
	}
	r.mu.Lock()
	likely := r.signers[waba]
	r.mu.Unlock()
	var tried time.Time
	for _, maxAge := range []time.Duration{secretsFor, secretsAgain} {
		secrets, read, err := r.appSecrets(req.Context(), maxAge)
		if err != nil {
			return "", false, err
		}
		if read.Equal(tried) {
			break // still the same ones
		}
		tried = read
		if i := slices.IndexFunc(secrets, func(s AppSecret) bool { return s.AppID == likely }); i >= 0 && cloudapi.VerifySignature(body, signature, secrets[i].Secret) {
			return likely, true, nil
		}
		found, err := r.search(req.Context(), secrets, likely, body, signature)
		if err != nil {
			return "", false, err
		}
		if found != "" {
			r.remember(waba, found)
			return found, true, nil
		}
	}
	return "", false, nil
}

// fewApps are tried without taking turns.
const fewApps = 4

// errBusy says that too many notifications of WABAs that are not known yet, or with a wrong signature, are being looked at.
var errBusy = errors.New("too many signatures are being tried")

// search tries the secrets of all apps but one. Where they are many, those who search take turns, so that callers who guess keep
// one processor busy and no more; the WABAs that are known do not come here.
func (r *Receiver) search(ctx context.Context, secrets []AppSecret, but string, body []byte, signature string) (appID string, err error) {
	if len(secrets) > fewApps {
		wait := time.NewTimer(keepWait)
		defer wait.Stop()
		select {
		case r.searching <- struct{}{}:
			defer func() { <-r.searching }()
		case <-wait.C:
			return "", errBusy
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	for _, s := range secrets {
		if s.AppID != but && cloudapi.VerifySignature(body, signature, s.Secret) {
			return s.AppID, nil
		}
	}
	return "", nil
}

func (r *Receiver) remember(waba, app string) {
	if waba == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.signers) >= maxSigners {
		clear(r.signers)
	}
	r.signers[waba] = app
}
