package simulator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
)

const (
	maxFlows     = 1000     // of a WABA
	maxFlowJSON  = 10 << 20 // bytes (Meta's limit)
	maxFlowBytes = 64 << 20 // bytes of all flows together
)

var flowCategories = strings.Fields("SIGN_UP SIGN_IN APPOINTMENT_BOOKING LEAD_GENERATION CONTACT_US CUSTOMER_SUPPORT SURVEY OTHER")

const (
	flowDraft      = "DRAFT"
	flowPublished  = "PUBLISHED"
	flowDeprecated = "DEPRECATED"
)

// flow is a WhatsApp Flow. Its JSON is kept as it came.
type flow struct {
	id, waba, name, status, endpoint, app string
	categories                            []string
	json                                  []byte
	version, dataVersion                  string
	problems                              []flowProblem
}

type flowProblem struct {
	Error   string `json:"error"`
	Type    string `json:"error_type"`
	Message string `json:"message"`
}

type flowView struct {
	*flow
	s *Server
	c *call
}

var flowNode = node[flowView]{
	name:     "WhatsAppFlow",
	defaults: "id,name,status,categories,validation_errors",
	fields: map[string]func(flowView) any{
		"id":                func(f flowView) any { return f.id },
		"name":              func(f flowView) any { return f.name },
		"status":            func(f flowView) any { return f.status },
		"categories":        func(f flowView) any { return f.categories },
		"validation_errors": func(f flowView) any { return f.errors() },
		"json_version":      func(f flowView) any { return given(f.version) },
		"data_api_version":  func(f flowView) any { return given(f.dataVersion) },
		"endpoint_uri":      func(f flowView) any { return given(f.endpoint) },
		"preview": func(f flowView) any {
			return map[string]string{
				"preview_url": "https://business.facebook.com/wa/manage/flows/" + f.id + "/preview/",
				"expires_at":  f.s.epoch.Add(f.c.now + mediaLife).UTC().Format("2006-01-02T15:04:05-0700"),
			}
		},
		"whatsapp_business_account": func(f flowView) any { return map[string]string{"id": f.waba, "name": "Simulated " + f.waba} },
		"application":               func(f flowView) any { return map[string]string{"id": f.appID()} },
		"health_status":             func(f flowView) any { return f.s.healthOf("FLOW", f.id, f.waba, f.appID()) },
	},
}

func (f flowView) appID() string {
	if f.app != "" {
		return f.app
	}
	return f.s.scopes.appOf(f.waba).id
}

// errors is never nil, so that it is a list in JSON.
func (f *flow) errors() []flowProblem { return append([]flowProblem{}, f.problems...) }

func (s *Server) flowsOf(waba string) []*flow {
	var of []*flow
	for _, id := range slices.Sorted(maps.Keys(s.managed.flows)) {
		if f := s.managed.flows[id]; f.waba == waba {
			of = append(of, f)
		}
	}
	return of
}

func (s *Server) listFlows(c *call) (any, *graphError) {
	if _, fault := s.wabaOf(c, false); fault != nil {
		return nil, fault
	}
	all := []flowView{}
	for _, f := range s.flowsOf(c.id) {
		all = append(all, flowView{f, s, c})
	}
	return flowNode.page(c, all, func(f flowView) string { return f.id })
}

// describe takes name, categories and the like from a call; what it does not name stays.
func (f *flow) describe(c *call) {
	if c.has("name") {
		f.name = c.required("name", 200)
	}
	if c.has("categories") {
		f.categories = c.list("categories")
		if len(f.categories) == 0 {
			c.wrong(100, "Param categories must have at least one element.")
		}
		for _, one := range f.categories {
			if !slices.Contains(flowCategories, one) {
				c.wrong(100, "Param categories must be of {%s}.", strings.Join(flowCategories, ", "))
			}
		}
	}
	if c.has("endpoint_uri") {
		f.endpoint = c.limited("endpoint_uri", 2048)
	}
	if c.has("application_id") {
		f.app = c.limited("application_id", maxID)
	}
}

// setJSON replaces a flow's JSON and says what is wrong with it; only its shape is looked
// at.
func (m *managed) setJSON(f *flow, raw []byte) *graphError {
	if len(raw) > maxFlowJSON {
		return invalid(100, "The flow's JSON is larger than 10 MB.")
	}
	if m.flowBytes-len(f.json)+len(raw) > maxFlowBytes {
		return coded(131000, 0, "The simulator keeps no more flows.")
	}
	m.flowBytes += len(raw) - len(f.json)
	f.json, f.problems, f.version, f.dataVersion = raw, nil, "", ""
	var body struct {
		Version string            `json:"version"`
		Data    string            `json:"data_api_version"`
		Screens []json.RawMessage `json:"screens"`
	}
	switch err := json.Unmarshal(raw, &body); {
	case err != nil:
		f.problems = []flowProblem{{"INVALID_FLOW_JSON", "FLOW_JSON_ERROR", "The flow's JSON cannot be read."}}
	case body.Version == "":
		f.problems = []flowProblem{{"REQUIRED_PROPERTY_MISSING", "FLOW_JSON_ERROR", "Property 'version' is missing."}}
	case len(body.Screens) == 0:
		f.problems = []flowProblem{{"REQUIRED_PROPERTY_MISSING", "FLOW_JSON_ERROR", "Property 'screens' is missing."}}
	}
	f.version, f.dataVersion = body.Version, body.Data
	return nil
}

func (s *Server) createFlow(c *call) (any, *graphError) {
	if _, fault := s.wabaOf(c, false); fault != nil {
		return nil, fault
	}
	m := s.managed
	f := &flow{waba: c.id, status: flowDraft}
	var raw []byte
	if from := c.text("clone_flow_id"); from != "" {
		source := m.flows[from]
		if source == nil {
			return nil, errUnknownObject
		}
		f.categories, f.endpoint, raw = source.categories, source.endpoint, source.json
	}
	f.describe(c)
	if text := c.text("flow_json"); text != "" {
		raw = []byte(text)
	}
	if f.name == "" {
		c.wrong(100, "The parameter name is required.")
	}
	if len(f.categories) == 0 {
		c.wrong(100, "The parameter categories is required.")
	}
	publish := c.flag("publish")
	if c.fault != nil {
		return nil, c.fault
	}
	others := s.flowsOf(c.id)
	if len(others) >= maxFlows {
		return nil, coded(139000, 0, fmt.Sprintf("The account has %d flows already.", maxFlows))
	}
	for _, other := range others {
		if other.name == f.name {
			return nil, coded(100, 4016019, "The account has a flow of that name already.")
		}
	}
	if len(raw) > 0 {
		if fault := m.setJSON(f, raw); fault != nil {
			return nil, fault
		}
		if publish && len(f.problems) == 0 {
			f.status = flowPublished
		}
	}
	f.id = s.newID(idFlow)
	m.flows[f.id] = f
	return map[string]any{"id": f.id, "success": true, "validation_errors": f.errors()}, nil
}

func (s *Server) updateFlow(c *call, f *flow) (any, *graphError) {
	next := *f
	next.describe(c)
	switch {
	case c.fault != nil:
		return nil, c.fault
	case f.status != flowDraft:
		return nil, coded(139001, 0, "A flow that was published cannot be changed.")
	}
	*f = next
	return success, nil
}

func (s *Server) deleteFlow(f *flow) (any, *graphError) {
	if f.status != flowDraft {
		return nil, coded(139004, 0, "A flow that was published cannot be deleted.")
	}
	s.managed.flowBytes -= len(f.json)
	delete(s.managed.flows, f.id)
	return success, nil
}

func (s *Server) publishFlow(c *call) (any, *graphError) {
	f := s.managed.flows[c.id]
	switch {
	case f == nil:
		return nil, errUnknownObject
	case f.status != flowDraft || len(f.json) == 0 || len(f.problems) > 0:
		return nil, coded(139002, 0, "Only a draft with a flow's JSON and without errors can be published.")
	}
	f.status = flowPublished
	return success, nil
}

func (s *Server) deprecateFlow(c *call) (any, *graphError) {
	f := s.managed.flows[c.id]
	switch {
	case f == nil:
		return nil, errUnknownObject
	case f.status != flowPublished:
		return nil, coded(139003, 0, "Only a published flow can be deprecated.")
	}
	f.status = flowDeprecated
	return success, nil
}

func (s *Server) listFlowAssets(c *call) (any, *graphError) {
	f := s.managed.flows[c.id]
	if f == nil {
		return nil, errUnknownObject
	}
	all := []string{}
	if f.json != nil {
		all = append(all, "flow.json")
	}
	return page(c, all, func(name string) string { return name }, maxPage, func(name string) any {
		return map[string]string{"name": name, "asset_type": "FLOW_JSON", "download_url": s.freshLink(c, f.id)}
	})
}

// serveFlowAsset answers POST /{flow}/assets, a form with the flow's JSON as its file.
func (s *Server) serveFlowAsset(w http.ResponseWriter, r *http.Request) {
	c := &call{r: r, id: r.PathValue("id")}
	if !c.pathOK() {
		s.serveUnknown(w, r)
		return
	}
	body, fault := s.receiveFlowAsset(c)
	s.answerCall(w, c, body, fault)
}

func (s *Server) receiveFlowAsset(c *call) (any, *graphError) {
	if !tokenOK(c.r, s.settings.Load().token) {
		return nil, errToken
	}
	done, ok := s.managed.receive(c)
	if !ok {
		return nil, errInternal
	}
	defer done()
	var raw []byte
	fault := c.readForm(c.r, func(part *multipart.Part) *graphError {
		var err error
		if raw, err = io.ReadAll(io.LimitReader(part, maxFlowJSON+1)); err != nil {
			return invalid(100, "Param file could not be read")
		}
		return nil
	})
	if fault != nil {
		return nil, fault
	}
	if c.text("name") != "flow.json" {
		c.wrong(100, "Param name must be flow.json.")
	}
	if c.text("asset_type") != "FLOW_JSON" {
		c.wrong(100, "Param asset_type must be one of {FLOW_JSON}")
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		c.wrong(100, "The parameter file is required.")
	}
	if c.fault != nil {
		return nil, c.fault
	}
	return s.locked(c, func(c *call) (any, *graphError) {
		f := s.managed.flows[c.id]
		switch {
		case f == nil:
			return nil, errUnknownObject
		case f.status != flowDraft:
			return nil, coded(139001, 0, "A flow that was published cannot be changed.")
		}
		if fault := s.managed.setJSON(f, raw); fault != nil {
			return nil, fault
		}
		return map[string]any{"success": true, "validation_errors": f.errors()}, nil
	})
}
