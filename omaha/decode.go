package omaha

import (
	"fmt"
	"math"
	"time"

	"github.com/semper-os/semper/fault"
)

// DecodeRequest reads the body of a request. The caller has bounded its size; everything else is bounded here.
func DecodeRequest(data []byte) (*Request, error) {
	r, err := decodeRequest(data)
	if err != nil {
		return nil, fmt.Errorf("omaha request: %w", err)
	}
	return r, nil
}

func decodeRequest(data []byte) (*Request, error) {
	root, ok := scan(data)
	if !ok {
		var err error
		if root, err = parse(data, math.MaxInt); err != nil {
			return nil, err
		}
	}
	if root.name != "request" {
		return nil, fault.New(fault.Input, "the root element is <%s>, not <request>", clip(root.name, 64))
	}
	a := attributes{el: root}
	a.protocol()
	r := &Request{
		Version:        a.short("version"),
		UpdaterVersion: a.short("updaterversion"),
		InstallSource:  a.short("installsource"),
		IsMachine:      a.flag("ismachine"),
		UserID:         a.short("userid"),
		SessionID:      a.short("sessionid"),
		RequestID:      a.short("requestid"),
	}
	if a.err != nil {
		return nil, a.err
	}
	var err error
	if r.OS, err = decodeOS(root); err != nil {
		return nil, err
	}
	apps, err := root.all("app", MaxApps)
	if err != nil {
		return nil, err
	}
	if len(apps) == 0 {
		return nil, fault.New(fault.Input, "there is no <app>")
	}
	for _, el := range apps {
		app, err := decodeApp(el)
		if err != nil {
			return nil, err
		}
		r.Apps = append(r.Apps, app)
	}
	return r, nil
}

func decodeOS(root *element) (OS, error) {
	el, err := root.one("os")
	if err != nil || el == nil {
		return OS{}, err
	}
	a := attributes{el: el}
	os := OS{Platform: a.short("platform"), Version: a.short("version"), ServicePack: a.short("sp"), Arch: a.short("arch")}
	return os, a.err
}

func decodeApp(el *element) (AppRequest, error) {
	a := attributes{el: el}
	app := AppRequest{
		ID:            a.short("appid"),
		Version:       a.short("version"),
		Track:         a.short("track"),
		MachineID:     a.short("machineid"),
		MachineAlias:  a.short("machinealias"),
		BootID:        a.short("bootid"),
		Board:         a.short("board"),
		OEM:           a.short("oem"),
		OEMVersion:    a.short("oemversion"),
		AlephVersion:  a.short("alephversion"),
		HardwareClass: a.short("hardware_class"),
		Lang:          a.short("lang"),
		DeltaOK:       a.flag("delta_okay"),
	}
	if a.err != nil {
		return app, a.err
	}
	ping, err := el.one("ping")
	if err != nil {
		return app, err
	}
	check, err := el.one("updatecheck")
	if err != nil {
		return app, err
	}
	app.Ping, app.UpdateCheck = ping != nil, check != nil
	events, err := el.all("event", MaxEvents)
	if err != nil {
		return app, err
	}
	for _, el := range events {
		e, err := decodeEvent(el)
		if err != nil {
			return app, err
		}
		app.Events = append(app.Events, e)
	}
	return app, nil
}

func decodeEvent(el *element) (Event, error) {
	a := attributes{el: el}
	e := Event{
		Type:            EventType(a.whole("eventtype", 0, math.MaxInt32, true)),
		Result:          EventResult(a.whole("eventresult", 0, math.MaxInt32, true)),
		ErrorCode:       ErrorCode(a.whole("errorcode", math.MinInt64, math.MaxInt64, false)),
		PreviousVersion: a.short("previousversion"),
		NextVersion:     a.short("nextversion"),
		Reason:          a.text("reason", MaxReason),
	}
	return e, a.err
}

// DecodeResponse reads the body of a response of at most MaxResponseSize bytes. What it offers is checked by UpdateResponse.Payload.
func DecodeResponse(data []byte) (*Response, error) {
	r, err := decodeResponse(data)
	if err != nil {
		return nil, fmt.Errorf("omaha response: %w", err)
	}
	return r, nil
}

func decodeResponse(data []byte) (*Response, error) {
	root, err := parse(data, MaxResponseSize)
	if err != nil {
		return nil, err
	}
	if root.name != "response" {
		return nil, fault.New(fault.Input, "the root element is <%s>, not <response>", clip(root.name, 64))
	}
	a := attributes{el: root}
	a.protocol()
	r := &Response{Server: a.short("server")}
	if a.err != nil {
		return nil, a.err
	}
	day, err := root.one("daystart")
	if err != nil {
		return nil, err
	}
	if day != nil {
		a := attributes{el: day}
		r.ElapsedSeconds = int(a.whole("elapsed_seconds", 0, 86400, false))
		if a.err != nil {
			return nil, a.err
		}
	}
	apps, err := root.all("app", MaxApps)
	if err != nil {
		return nil, err
	}
	for _, el := range apps {
		app, err := decodeAppResponse(el)
		if err != nil {
			return nil, err
		}
		r.Apps = append(r.Apps, app)
	}
	return r, nil
}

func decodeAppResponse(el *element) (AppResponse, error) {
	a := attributes{el: el}
	app := AppResponse{ID: a.short("appid"), Status: AppStatus(a.short("status"))}
	if a.err != nil {
		return app, a.err
	}
	ping, err := el.one("ping")
	if err != nil {
		return app, err
	}
	app.Ping = ping != nil
	events, err := el.all("event", MaxEvents)
	if err != nil {
		return app, err
	}
	app.Events = len(events)
	check, err := el.one("updatecheck")
	if err != nil || check == nil {
		return app, err
	}
	app.UpdateCheck, err = decodeUpdate(check)
	return app, err
}

func decodeUpdate(el *element) (*UpdateResponse, error) {
	a := attributes{el: el}
	u := &UpdateResponse{
		Status:       UpdateStatus(a.short("status")),
		PollInterval: time.Duration(a.whole("PollInterval", 0, int64(MaxPollInterval/time.Second), false)) * time.Second,
		Reason:       a.text("reason", MaxReason),
		Freshness:    a.text("semper_freshness", MaxFreshness),
	}
	if a.err != nil {
		return nil, a.err
	}
	urls, err := el.one("urls")
	if err != nil {
		return nil, err
	}
	if urls != nil {
		list, err := urls.all("url", MaxURLs)
		if err != nil {
			return nil, err
		}
		for _, el := range list {
			a := attributes{el: el}
			u.URLs = append(u.URLs, a.text("codebase", MaxURL))
			if a.err != nil {
				return nil, a.err
			}
		}
	}
	manifest, err := el.one("manifest")
	if err != nil || manifest == nil {
		return u, err
	}
	u.Manifest, err = decodeManifest(manifest)
	return u, err
}

func decodeManifest(el *element) (*Manifest, error) {
	a := attributes{el: el}
	m := &Manifest{Version: a.short("version")}
	if a.err != nil {
		return nil, a.err
	}
	packages, err := el.one("packages")
	if err != nil {
		return nil, err
	}
	if packages != nil {
		list, err := packages.all("package", MaxPackages)
		if err != nil {
			return nil, err
		}
		for _, el := range list {
			a := attributes{el: el}
			m.Packages = append(m.Packages, Package{
				Name:     a.short("name"),
				SHA1:     a.short("hash"),
				SHA256:   a.short("hash_sha256"),
				Size:     a.whole("size", 0, math.MaxInt64, true),
				Required: a.flag("required"),
			})
			if a.err != nil {
				return nil, a.err
			}
		}
	}
	actions, err := el.one("actions")
	if err != nil || actions == nil {
		return m, err
	}
	list, err := actions.all("action", MaxPackages)
	if err != nil {
		return nil, err
	}
	for _, el := range list {
		a := attributes{el: el}
		m.Actions = append(m.Actions, Action{
			Event:                 a.short("event"),
			SHA256:                a.short("sha256"),
			IsDelta:               a.flag("IsDeltaPayload"),
			DisablePayloadBackoff: a.flag("DisablePayloadBackoff"),
			MaxFailureCountPerURL: int(a.whole("MaxFailureCountPerUrl", 0, math.MaxInt32, false)),
		})
		if a.err != nil {
			return nil, a.err
		}
	}
	return m, nil
}
