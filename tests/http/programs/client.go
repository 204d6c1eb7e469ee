// Go's own HTTP client: creates a task, reads it 20 times, sends a body that is too large.
// Prints the statuses and how many connections it needed.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
)

var connections = 0

func send(method, url string, body []byte) (int, []byte) {
	request, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if !info.Reused {
			connections++
		}
	}}
	response, err := http.DefaultClient.Do(request.WithContext(httptrace.WithClientTrace(request.Context(), trace)))
	if err != nil {
		panic(err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return response.StatusCode, text
}

func main() {
	base := os.Args[1]
	status, text := send("POST", base+"/api/u/tasks", []byte(`{"title": "x"}`))
	statuses := []int{status}
	var task struct{ ID int64 }
	json.Unmarshal(text, &task)
	for n := 0; n < 20; n++ {
		status, _ = send("GET", fmt.Sprintf("%s/api/u/tasks/%d", base, task.ID), nil)
		statuses = append(statuses, status)
	}
	needed := connections
	large, _ := send("POST", base+"/api/u/tasks", bytes.Repeat([]byte("x"), 20_000_000))
	json.NewEncoder(os.Stdout).Encode(map[string]any{"statuses": statuses, "connections": needed, "large": large})
}
