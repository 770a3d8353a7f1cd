package bus

import (
	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"
)

// semperXML describes org.semper.Update1.
func semperXML() introspect.Interface {
	in := func(name, kind string) introspect.Arg { return introspect.Arg{Name: name, Type: kind, Direction: "in"} }
	i := introspect.Interface{
		Name: semperInterface,
		Methods: []introspect.Method{
			{Name: "Check"},
			{Name: "Update"},
			{Name: "Cancel"},
			{Name: "Pause", Args: []introspect.Arg{in("on", "b"), in("reason", "s")}},
			{Name: "SetMetered", Args: []introspect.Arg{in("on", "b")}},
			{Name: "Retry", Args: []introspect.Arg{in("version", "s")}},
			{Name: "Rollback"},
		},
		Signals: []introspect.Signal{{
			Name: "StateChanged",
			Args: []introspect.Arg{{Name: "old", Type: "s"}, {Name: "new", Type: "s"}, {Name: "reason", Type: "s"}},
		}},
	}
	for _, p := range properties {
		i.Properties = append(i.Properties, introspect.Property{Name: p.name, Type: dbus.SignatureOf(p.of(Status{})).String(), Access: "read"})
	}
	return i
}

var propertiesXML = introspect.Interface{
	Name: propertiesInterface,
	Methods: []introspect.Method{
		{Name: "Get", Args: []introspect.Arg{
			{Name: "interface", Type: "s", Direction: "in"},
			{Name: "property", Type: "s", Direction: "in"},
			{Name: "value", Type: "v", Direction: "out"},
		}},
		{Name: "GetAll", Args: []introspect.Arg{
			{Name: "interface", Type: "s", Direction: "in"},
			{Name: "properties", Type: "a{sv}", Direction: "out"},
		}},
		{Name: "Set", Args: []introspect.Arg{
			{Name: "interface", Type: "s", Direction: "in"},
			{Name: "property", Type: "s", Direction: "in"},
			{Name: "value", Type: "v", Direction: "in"},
		}},
	},
	Signals: []introspect.Signal{{Name: "PropertiesChanged", Args: []introspect.Arg{
		{Name: "interface", Type: "s"},
		{Name: "changed", Type: "a{sv}"},
		{Name: "invalidated", Type: "as"},
	}}},
}
