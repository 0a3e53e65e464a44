package account

import (
	"net/http"
	"regexp"
	"strings"
)

var versionForm = regexp.MustCompile(`^v[0-9]+\.[0-9]+$`)

// IsManagement says whether a Graph API call counts into the management calls of a WABA and hour, by Meta's list: reading
// a WABA, and its assigned_users, phone_numbers, message_templates and subscribed_apps. The path may begin with the API
// version. A path alone does not tell a WABA from another node: reading any node counts, so the count is never too low.
// Sending a message is not in the list.
func IsManagement(method, path string) bool {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if versionForm.MatchString(parts[0]) {
		parts = parts[1:]
	}
	switch {
	case len(parts) == 1 && parts[0] != "":
		return method == http.MethodGet
	case len(parts) != 2:
		return false
	}
	switch parts[1] {
	case "assigned_users", "message_templates", "subscribed_apps":
		return method == http.MethodGet || method == http.MethodPost || method == http.MethodDelete
	case "phone_numbers":
		return method == http.MethodGet || method == http.MethodPost
	}
	return false
}
