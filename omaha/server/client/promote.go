package client

import (
	"context"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
)

// Promote gives a channel the release that another one has at that moment.
func (c *Client) Promote(ctx context.Context, from, to string, q SetChannelQuery, options ...Option) (api.Channel, error) {
	if q.Arch == "" {
		q.Arch = api.DefaultArch
	}
	all, err := c.Channels(ctx, ChannelsQuery{App: q.App})
	if err != nil {
		return api.Channel{}, err
	}
	for _, ch := range all.Channels {
		switch {
		case ch.Name != from || ch.Arch != q.Arch:
		case ch.Version == "":
			return api.Channel{}, fault.New(fault.Input, "channel %s has no release for %s to promote", from, q.Arch)
		default:
			return c.SetChannel(ctx, to, q, api.SetChannel{Version: ch.Version}, options...)
		}
	}
	return api.Channel{}, fault.New(fault.Input, "promote: channel %q for %q: not found", from, q.Arch)
}
