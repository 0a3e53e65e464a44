package simulator

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// call is one management request: what it asks, and what the answer's headers tell.
type call struct {
	params
	r   *http.Request
	id  string // of the node in the path
	now time.Duration
	use usageHeaders
}

// handler answers a call. It runs with the Server's lock held; what it returns must not
// change afterwards, since it is encoded without the lock.
type handler func(c *call) (any, *graphError)

// answerWith is a body whose HTTP status is not 200.
type answerWith struct {
	status int
	body   any
}

var success = map[string]bool{"success": true}

// manageRoutes adds the management endpoints and their controls.
func (s *Server) manageRoutes(mux *http.ServeMux) {
	graph := func(pattern string, h handler) {
		method, path, _ := strings.Cut(pattern, " ")
		mux.HandleFunc(method+" /{version}"+path, func(w http.ResponseWriter, r *http.Request) { s.serveGraph(w, r, h) })
	}
	graph("GET /{id}", s.readNode)
	mux.HandleFunc("POST /{version}/{id}", s.servePost)
	graph("DELETE /{id}", s.deleteNode)

	mux.HandleFunc("POST /{version}/{id}/media", s.serveMediaUpload)
	mux.HandleFunc("GET /_media/{id}", s.serveFile)
	graph("POST /{id}/uploads", s.startUpload)

	graph("GET /{id}/message_templates", s.listTemplates)
	graph("POST /{id}/message_templates", s.createTemplate)
	graph("DELETE /{id}/message_templates", s.deleteTemplates)
	graph("POST /{id}/upsert_message_templates", s.upsertTemplates)
	graph("POST /{id}/migrate_message_templates", s.migrateTemplates)
	graph("GET /{id}/message_template_previews", s.previewTemplates)
	graph("GET /{id}/message_template_library", s.listLibrary)
	graph("POST /{id}/unpause", s.unpauseTemplate)
	graph("GET /{id}/compare", s.compareTemplates)

	graph("GET /{id}/phone_numbers", s.listPhoneNumbers)
	graph("POST /{id}/phone_numbers", s.addPhoneNumber)
	graph("POST /{id}/request_code", s.requestCode)
	graph("POST /{id}/verify_code", s.verifyCode)
	graph("POST /{id}/register", s.registerNumber)
	graph("POST /{id}/deregister", s.deregisterNumber)
	graph("GET /{id}/settings", s.readSettings)
	graph("POST /{id}/settings", s.updateSettings)
	graph("GET /{id}/whatsapp_business_profile", s.readProfile)
	graph("POST /{id}/whatsapp_business_profile", s.updateProfile)
	graph("GET /{id}/block_users", s.listBlocked)
	graph("POST /{id}/block_users", s.blockUsers)
	graph("DELETE /{id}/block_users", s.unblockUsers)
	graph("GET /{id}/message_qrdls", s.listQRCodes)
	graph("POST /{id}/message_qrdls", s.saveQRCode)
	graph("GET /{id}/message_qrdls/{code}", s.readQRCode)
	graph("DELETE /{id}/message_qrdls/{code}", s.deleteQRCode)
	mux.HandleFunc("GET /_qr/{file}", serveQRImage)
	graph("GET /{id}/message_history", s.readHistory)
	graph("GET /{id}/events", s.readHistoryEvents)

	graph("GET /{id}/subscribed_apps", s.listSubscribedApps)
	graph("POST /{id}/subscribed_apps", s.subscribeApp)
	graph("DELETE /{id}/subscribed_apps", s.unsubscribeApp)
	graph("GET /{id}/subscriptions", s.listSubscriptions)
	graph("POST /{id}/subscriptions", s.subscribe)
	graph("DELETE /{id}/subscriptions", s.unsubscribe)

	graph("GET /{id}/flows", s.listFlows)
	graph("POST /{id}/flows", s.createFlow)
	graph("GET /{id}/assets", s.listFlowAssets)
	graph("POST /{id}/publish", s.publishFlow)
	graph("POST /{id}/deprecate", s.deprecateFlow)
	mux.HandleFunc("POST /{version}/{id}/assets", s.serveFlowAsset)

	s.manageControl(mux)
}

// managed is what management calls keep. The Server's mutex guards it, but for the depot.
type managed struct {
	idBase    int64
	lastIDs   [idKinds]int64
	secret    [16]byte // signs links to files
	calls     callLog
	depot     depot
	mediaKeep int64 // bytes
	receiving chan struct{}

	media     map[string]*media
	mediaAge  []*media // oldest first
	uploads   map[string]*upload
	uploadAge []*upload
	handles   map[string]*upload
	templates map[string]*template
	flows     map[string]*flow
	flowBytes int
	accounts  map[string]*account     // by WABA id
	apps      map[string]subscription // by app id
	health    map[string]Health       // by id of the entity
	reviewing []*template

	strictTemplates, strictMedia bool
	goneBy                       string
	links                        LinkFailure
	review                       TemplateReview
}

// kinds of ids, which are the first of their sixteen digits
const (
	idMedia = iota + 1
	idTemplate
	idFlow
	idHistory
	idPhone
	idUpload
	idKinds
)

func newManaged(cfg Config) *managed {
	m := &managed{
		mediaKeep: cfg.MediaBytes,
		depot:     depot{parent: cfg.MediaDir},
		receiving: make(chan struct{}, maxReceiving),
		// Ids go on from where an earlier process may have been, so that an id that a
		// client kept means nothing else now.
		idBase: time.Now().Unix() % 1_000_000_000 * 1_000_000,
		health: map[string]Health{},
		goneBy: ByWebhook,
	}
	if m.mediaKeep <= 0 {
		m.mediaKeep = DefaultMediaBytes
	}
	_, _ = rand.Read(m.secret[:]) // never fails (crypto/rand)
	m.clear()
	return m
}

// clear forgets what calls have made; settings and used ids stay.
func (m *managed) clear() {
	m.media, m.mediaAge = map[string]*media{}, nil
	m.uploads, m.uploadAge, m.handles = map[string]*upload{}, nil, map[string]*upload{}
	m.templates, m.reviewing = map[string]*template{}, nil
	m.flows, m.flowBytes = map[string]*flow{}, 0
	m.accounts, m.apps = map[string]*account{}, map[string]subscription{}
}

// reset is clear, also of the files and of what phone numbers have.
func (m *managed) reset(phones []*phone) {
	for _, f := range m.mediaAge {
		m.depot.drop(f.blob)
	}
	for _, u := range m.uploadAge {
		if !u.busy { // else who receives it drops it
			m.depot.drop(u.blob)
		}
	}
	for _, p := range phones {
		p.own = nil
	}
	m.clear()
}

// newID makes the id of a new node, distinct from all that are known.
func (s *Server) newID(kind int) string {
	m := s.managed
	for {
		m.lastIDs[kind]++
		id := fmt.Sprint(int64(kind)*1_000_000_000_000_000 + m.idBase + m.lastIDs[kind])
		if s.scopes.phones[id] == nil && s.scopes.wabas[id] == nil {
			return id
		}
	}
}

// names in the place of an id: the token's own app, and the library
const (
	ownApp      = "app"
	libraryPath = "message_template_library"
)

// serveGraph answers one call: path, token, parameters, then what h says.
func (s *Server) serveGraph(w http.ResponseWriter, r *http.Request, h handler) {
	c := &call{r: r, id: r.PathValue("id")}
	if !c.pathOK() {
		s.serveUnknown(w, r)
		return
	}
	body, fault := s.handle(c, h)
	s.answerCall(w, c, body, fault)
}

func (c *call) pathOK() bool {
	return versionLike(c.r.PathValue("version")) && (c.id == ownApp || c.id == libraryPath || idLike(c.id) || strings.HasPrefix(c.id, uploadPrefix))
}

func (s *Server) handle(c *call, h handler) (any, *graphError) {
	if !tokenOK(c.r, s.settings.Load().token) {
		return nil, errToken
	}
	if fault := c.read(c.r); fault != nil {
		return nil, fault
	}
	return s.locked(c, h)
}

// locked runs h as handlers run.
func (s *Server) locked(c *call, h handler) (any, *graphError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.now = s.scopes.monotone(s.now())
	s.managed.decide(c.now)
	return h(c)
}

// answerCall notes the call and gives its answer after the latency.
func (s *Server) answerCall(w http.ResponseWriter, c *call, body any, fault *graphError) {
	status, code := http.StatusOK, 0
	if with, ok := body.(answerWith); ok {
		status, body = with.status, with.body
	}
	if fault != nil {
		status, code = fault.status, fault.code
	}
	s.mu.Lock()
	s.managed.calls.add(Call{AtMS: s.now().Milliseconds(), Method: c.r.Method, Path: c.r.URL.Path, Status: status, Code: code})
	s.mu.Unlock()
	if !s.wait(c.r.Context(), s.settings.Load().answerAfter()) {
		return
	}
	c.use.set(w.Header())
	if fault != nil {
		s.writeError(w, fault)
		return
	}
	writeGraph(w, status, body)
}

// writeGraph writes JSON as the Graph API does: slashes and all beyond ASCII escaped, so
// that who looks for an address in the bytes instead of in the value is found out.
func writeGraph(w http.ResponseWriter, status int, v any) {
	raw, err := encodeHook(v)
	if err != nil { // only our own plain values come here
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	raw = bytes.ReplaceAll(raw, []byte("/"), []byte(`\/`)) // they stand in strings only
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
	w.WriteHeader(status)
	_, _ = w.Write(raw) // the client may be gone
}

// wabaOf is the WABA a call is about. counted says whether Meta counts the call against
// the WABA's management limit.
func (s *Server) wabaOf(c *call, counted bool) (*account, *graphError) {
	if s.scopes.wabas[c.id] == nil {
		return nil, errUnknownObject
	}
	if counted {
		var fault *graphError
		if c.use, fault = s.manage(c.id); fault != nil {
			return nil, fault
		}
	}
	return s.managed.account(c.id), nil
}

func (m *managed) account(waba string) *account {
	a := m.accounts[waba]
	if a == nil {
		a = &account{id: waba}
		m.accounts[waba] = a
	}
	return a
}

// numberOf is the phone number a call is about. As a message does, a POST makes a number
// known that was not.
func (s *Server) numberOf(c *call) (*phone, *graphError) {
	if p := s.scopes.phones[c.id]; p != nil {
		return p, nil
	}
	m := s.managed
	known := s.scopes.wabas[c.id] != nil || m.templates[c.id] != nil || m.media[c.id] != nil || m.flows[c.id] != nil
	if c.r.Method != http.MethodPost || known || !idLike(c.id) {
		return nil, errUnknownObject
	}
	p := s.scopes.phone(c.id)
	if p == nil {
		return nil, errUnknownObject
	}
	return p, nil
}
