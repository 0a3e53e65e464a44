package cloudapi

// Fault is one thing that is wrong with a request.
type Fault struct {
	Pointer string `json:"pointer"` // RFC 6901, into the body; "" for the body as a whole
	Detail  string `json:"detail"`
	// Code is Meta's code of the error that it would have answered with, where that is known; else 0.
	Code int `json:"code,omitempty"`
}
