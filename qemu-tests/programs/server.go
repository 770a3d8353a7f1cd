package programs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/semper-os/semper/omaha/server/api"
)

const pollEvery = 250 * time.Millisecond

// Server is a running semper-server with its data in a folder of its own.
type Server struct {
	URL       string // http://127.0.0.1:PORT
	Dir       string // data/, server.log, publish.token
	TokenFile string

	programs Folder
	daemon   *daemon
}

// StartServer starts a server whose data is in dir/data, and waits until it answers. Args are more of its flags.
func (f Folder) StartServer(ctx context.Context, dir string, args ...string) (*Server, error) {
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	s := &Server{Dir: dir, TokenFile: filepath.Join(data, "publish.token"), programs: f}
	address := filepath.Join(dir, "address")
	if err := os.Remove(address); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	all := append([]string{"serve", "--listen", "127.0.0.1:0", "--address-file", address, "--data", data}, args...)
	d, err := f.start(ctx, filepath.Join(dir, "server.log"), "semper-server", all...)
	if err != nil {
		return nil, err
	}
	s.daemon = d
	for {
		text, err := os.ReadFile(address)
		if err == nil {
			s.URL = "http://" + strings.TrimSpace(string(text))
			return s, nil
		}
		select {
		case <-d.done:
			return nil, fmt.Errorf("start the update server: %w", d.ended())
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), s.Stop())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop ends the server in order.
func (s *Server) Stop() error { return s.daemon.stop() }

// Publish uploads a release and makes it the current one of a channel, with "semper publish"; without a channel it waits for a rollout.
func (s *Server) Publish(ctx context.Context, log io.Writer, release, channel string) error {
	args := []string{"publish", release, "--server", s.URL, "--token-file", s.TokenFile}
	if channel != "" {
		args = append(args, "--channel", channel)
	}
	_, err := s.programs.Run(ctx, log, "semper", args...)
	return err
}

// Get asks the REST interface for a path below /api/v1.
func (s *Server) Get(ctx context.Context, path string, answer any) error {
	token, err := os.ReadFile(s.TokenFile)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/api/v1/"+path, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the update server answers %s for %s: %s", response.Status, path, body)
	}
	return json.Unmarshal(body, answer)
}

// Machine returns all that the server knows of a machine. An empty id means the only machine that it knows, and a zero answer that it knows none.
func (s *Server) Machine(ctx context.Context, id string) (api.MachineDetail, error) {
	var detail api.MachineDetail
	if id == "" {
		var list api.Machines
		if err := s.Get(ctx, "machines", &list); err != nil {
			return detail, err
		}
		switch len(list.Machines) {
		case 0:
			return detail, nil
		case 1:
			id = list.Machines[0].ID
		default:
			return detail, fmt.Errorf("the update server knows %d machines, not one", len(list.Machines))
		}
	}
	return detail, s.Get(ctx, "machines/"+url.PathEscape(id), &detail)
}

// WaitMachine asks until ok is satisfied with the only machine, and returns what the server said last. What is for the error.
func (s *Server) WaitMachine(ctx context.Context, what string, ok func(api.MachineDetail) bool) (api.MachineDetail, error) {
	var last api.MachineDetail
	for {
		m, err := s.Machine(ctx, "")
		if err == nil {
			if last = m; m.ID != "" && ok(m) {
				return m, nil
			}
		}
		select {
		case <-time.After(pollEvery):
		case <-s.daemon.done:
			return last, fmt.Errorf("wait for %s at the server: %w", what, s.daemon.ended())
		case <-ctx.Done():
			seen, _ := json.MarshalIndent(last, "    ", "  ")
			return last, fmt.Errorf("the server did not show %s: %w; it last said:\n    %s", what, errors.Join(context.Cause(ctx), err), seen)
		}
	}
}
