package sender

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"wagate/internal/cloudapi"
)

// getTimeout bounds one reading.
const getTimeout = 30 * time.Second

// errBadPath is for a path that would leave the version's.
var errBadPath = errors.New("the path cannot be one of the Graph API's")

// ErrLongAnswer is returned, wrapped, by Get for an answer of more than 1 MiB.
var ErrLongAnswer = errors.New("the answer is too long")

// Get reads GET /{version}/{path}, for example 100/phone_numbers, and gives the body of a 2xx answer, at most 1 MiB. An error
// that Meta answers with wraps *cloudapi.Error. It is for the few readings of accounts: it takes part in no limit here.
func (s *Sender) Get(ctx context.Context, path string, query url.Values, token string) ([]byte, error) {
	if path == "" || strings.Contains(path, "..") || strings.ContainsAny(path, "?#%\\ ") || !isHeaderValue(path) || strings.HasPrefix(path, "/") {
		return nil, errBadPath
	}
	if token == "" || len(token) > maxToken || !isHeaderValue(token) {
		return nil, errors.New("the access token is empty or cannot stand in a header")
	}
	ctx, cancel := context.WithTimeout(ctx, getTimeout)
	defer cancel()
	u := s.base
	u.Path += path
	u.RawQuery = query.Encode()
	r := &http.Request{Method: http.MethodGet, URL: &u, Host: u.Host, Header: http.Header{"Authorization": {"Bearer " + token}, "User-Agent": agent}}
	answer, err := s.reads.RoundTrip(r.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading %s: %w", path, err)
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("reading %s: %w", path, ErrLongAnswer)
	case answer.StatusCode >= 200 && answer.StatusCode < 300:
		return body, nil
	}
	if e, ok := cloudapi.ParseError(answer.StatusCode, body); ok {
		return nil, fmt.Errorf("reading %s: %w", path, e)
	}
	return nil, fmt.Errorf("reading %s: HTTP status %d", path, answer.StatusCode)
}
