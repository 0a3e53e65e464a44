package simulator

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/http"
	"strconv"
)

// graphError is one answer in the Graph API's error envelope.
type graphError struct {
	status, code, subcode  int
	message, details       string
	userTitle, userMessage string // error_user_title and error_user_msg
	transient              bool   // is_transient
	noBody                 bool   // the HTTP status alone, as from an edge in front of the API
	retryAfter             int    // seconds, in Retry-After
	regain                 int    // minutes, in X-Business-Use-Case-Usage
}

// told is what the client sees: the code, or the HTTP status where there is no body.
func (e *graphError) told() int {
	if e.noBody {
		return e.status
	}
	return e.code
}

// coded makes an error with the HTTP status and title that Meta gives the code.
func coded(code, subcode int, details string) *graphError {
	status, title := codeOf(code)
	return &graphError{status: status, code: code, subcode: subcode, message: fmt.Sprintf("(#%d) %s", code, title), details: details}
}

var (
	errPhoneThrottled = coded(130429, 2494055,
		"Message failed to send because there were too many messages sent from this phone number in a short period of time.")
	errWABAThrottled = coded(80007, 0, "The WhatsApp Business Account has reached its rate limit.")
	errAppThrottled  = coded(4, 0, "The app has reached its API call rate limit.")
	errPairThrottled = coded(131056, 2494055,
		"Too many messages sent from this phone number to the same phone number in a short period of time.")
	errManagementThrottled = coded(80008, 0,
		"There have been too many calls to this WhatsApp Business account. Wait a bit and try again.")
	errThrottled429 = &graphError{
		status: http.StatusTooManyRequests, code: 130429, subcode: 2494055,
		message: errPhoneThrottled.message, details: errPhoneThrottled.details,
	}
	errUndeliverable = coded(131026, 0, undeliverableDetails)
	errInternal      = coded(131000, 0, "Message failed to send because of an unknown error.")
	errToken         = &graphError{
		status: http.StatusUnauthorized, code: 190,
		message: "Invalid OAuth access token - Cannot parse access token", details: "A valid bearer token is required.",
	}
	errUnknownObject = &graphError{
		status: http.StatusNotFound, code: 100, subcode: 33,
		message: "(#100) Unsupported request: the object or path does not exist", details: "Check the HTTP method, the API version and the id.",
	}
)

const undeliverableDetails = "Message Undeliverable."

// errorTitles are the codes that concern sends, with the titles of Meta's error page.
var errorTitles = map[int]string{
	0: "AuthException", 1: "API Unknown", 2: "API Service", 3: "API Method", 4: "Application request limit reached",
	10: "Permission Denied", 33: "Parameter value is not valid", 100: "Invalid parameter", 190: "Access token has expired",
	368: "Temporarily blocked for policies violations", 80007: "Rate limit issues",
	80008:  "Too many calls to this WhatsApp Business account",
	130403: "Blocked by business", 130429: "Rate limit hit", 130472: "User's number is part of an experiment", 130497: "Country restricted",
	131000: "Something went wrong", 131005: "Access denied", 131008: "Required parameter is missing",
	131009: "Parameter value is not valid", 131016: "Service unavailable", 131021: "Recipient cannot be sender",
	131026: "Message undeliverable", 131030: "Recipient phone number not in allowed list", 131031: "Account has been locked",
	131037: "Display name approval needed", 131042: "Business eligibility payment issue", 131045: "Incorrect certificate",
	131047: "Re-engagement message", 131048: "Spam rate limit hit",
	131049: "This message was not delivered to maintain healthy ecosystem engagement", 131050: "User stopped marketing messages",
	131051: "Unsupported message type", 131052: "Media download error", 131053: "Media upload error",
	131056: "(Business Account, Consumer Account) pair rate limit hit", 131057: "Account in maintenance mode",
	132000: "Number of parameters does not match the expected number of params", 132001: "Template name does not exist in the translation",
	132005: "Translated text too long", 132007: "Template format character policy violated", 132012: "Parameter format does not match format in the created template",
	132015: "Template is paused", 132016: "Template is disabled", 132068: "Flow is blocked", 132069: "Flow is throttled",
	133004: "Server temporarily unavailable", 133010: "Phone number not registered", 133016: "Account register deregister rate limit exceeded",
	133005: "Two-step verification PIN mismatch", 133006: "Phone number needs to be verified before registering",
	134100: "Only marketing messages supported", 134102: "Template unavailable for use", 136025: "Verify code error",
	139000: "Flow error", 139001: "Flow cannot be updated", 139002: "Flow cannot be published", 139003: "Flow cannot be deprecated",
	139004: "Flow cannot be deleted", 139100: "Failed to block/unblock users", 139101: "Blocklist limit reached",
}

// codeOf is the HTTP status and the title that Meta's table gives a code; a code that
// nobody knows gets 400.
func codeOf(code int) (status int, title string) {
	title = errorTitles[code]
	if title == "" {
		title = "Unknown error"
	}
	switch code {
	case 0, 190:
		return http.StatusUnauthorized, title
	case 2, 133004:
		return http.StatusServiceUnavailable, title
	case 3, 131000, 131016, 131045, 131057, 134102:
		return http.StatusInternalServerError, title
	case 10, 368, 130497, 131005, 131031:
		return http.StatusForbidden, title
	case 132001:
		return http.StatusNotFound, title
	}
	if code >= 200 && code <= 299 {
		return http.StatusForbidden, title
	}
	return http.StatusBadRequest, title
}

// invalid is a refusal of the body.
func invalid(code int, details string) *graphError { return coded(code, 0, details) }

// errorBody is the error object of Graph answers.
type errorBody struct {
	Message     string    `json:"message"`
	Type        string    `json:"type"`
	Code        int       `json:"code"`
	Subcode     int       `json:"error_subcode,omitempty"`
	Transient   bool      `json:"is_transient,omitempty"`
	UserTitle   string    `json:"error_user_title,omitempty"`
	UserMessage string    `json:"error_user_msg,omitempty"`
	ErrorData   errorData `json:"error_data"`
	TraceID     string    `json:"fbtrace_id"`
}

type errorData struct {
	MessagingProduct string `json:"messaging_product"`
	Details          string `json:"details"`
}

// errorOf is the error object that tells of a fault, with a trace id of its own.
func (s *Server) errorOf(e *graphError) errorBody {
	var raw [15]byte
	copy(raw[:7], s.nonce[:])
	binary.BigEndian.PutUint64(raw[7:], s.traceID.Add(1))
	return errorBody{
		Message: e.message, Type: "OAuthException", Code: e.code, Subcode: e.subcode, Transient: e.transient,
		UserTitle: e.userTitle, UserMessage: e.userMessage,
		ErrorData: errorData{"whatsapp", e.details},
		TraceID:   "A" + base64.RawURLEncoding.EncodeToString(raw[:]),
	}
}

func (s *Server) writeError(w http.ResponseWriter, e *graphError) {
	if e.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(e.retryAfter))
	}
	if e.noBody {
		w.WriteHeader(e.status)
		return
	}
	writeJSON(w, e.status, map[string]errorBody{"error": s.errorOf(e)})
}
