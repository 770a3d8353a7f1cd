package rootfs

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/semper-os/semper/builder/tree"
	"github.com/semper-os/semper/fault"
)

// User is a user that the recipe adds, with a group of the same name. There is no password: people log in with keys.
type User struct {
	Name   string
	UID    int
	GID    int
	Home   string // absolute, below /home or /var for anybody who logs in
	Shell  string
	Groups []string // more groups, which must exist or be made by another user
}

// AddUsers adds users and their groups to passwd, group, shadow and gshadow. Users that log in get the sub-identifiers
// that containers without root need: 65536 each, from 1,000,000 on, in the order of their numbers.
func AddUsers(t *tree.Tree, users []User, epoch time.Time) error {
	db, err := readAccounts(t)
	if err != nil {
		return err
	}
	users = slices.Clone(users)
	slices.SortFunc(users, func(a, b User) int { return a.UID - b.UID })
	day := strconv.FormatInt(epoch.Unix()/86400, 10)
	var subids strings.Builder
	for _, u := range users {
		if i := db.passwd.find(u.Name); i >= 0 {
			return fault.New(fault.Input, "user %s: a package has made it already (%s)", u.Name, strings.Join(db.passwd[i], ":"))
		}
		if owner := db.passwd.byNumber(u.UID); owner != "" {
			return fault.New(fault.Input, "user %s: uid %d belongs to %s already", u.Name, u.UID, owner)
		}
		if db.group.find(u.Name) < 0 {
			if owner := db.group.byNumber(u.GID); owner != "" {
				return fault.New(fault.Input, "user %s: gid %d belongs to the group %s already", u.Name, u.GID, owner)
			}
			db.group = append(db.group, []string{u.Name, "x", strconv.Itoa(u.GID), ""})
			db.gshadow = append(db.gshadow, []string{u.Name, "!*", "", ""})
		}
		db.passwd = append(db.passwd, []string{u.Name, "x", strconv.Itoa(u.UID), strconv.Itoa(u.GID), "", u.Home, u.Shell})
		db.shadow = append(db.shadow, []string{u.Name, "!*", day, "0", "99999", "7", "", "", ""})
		if u.UID >= 1000 {
			fmt.Fprintf(&subids, "%s:%d:65536\n", u.Name, 1_000_000+(u.UID-1000)*65536)
		}
	}
	for _, u := range users {
		for _, g := range u.Groups {
			i, j := db.group.find(g), db.gshadow.find(g)
			if i < 0 || j < 0 {
				return fault.New(fault.Input, "user %s: there is no group %s in the image", u.Name, g)
			}
			addMember(db.group[i], u.Name)
			addMember(db.gshadow[j], u.Name)
		}
	}
	if err := db.write(t); err != nil {
		return err
	}
	for _, p := range []string{"etc/subuid", "etc/subgid"} {
		if err := t.PutFile(p, 0o644, []byte(subids.String())); err != nil {
			return err
		}
	}
	return makeHomes(t, users)
}

// makeHomes puts a home below /var into the tree for everybody who logs in; Writable describes it to systemd-tmpfiles.
func makeHomes(t *tree.Tree, users []User) error {
	for _, u := range users {
		if u.UID < 1000 {
			continue
		}
		p := strings.TrimPrefix(u.Home, "/")
		if strings.HasPrefix(p, "home/") { // a link to /var/home, see Writable
			p = "var/" + p
		}
		if !strings.HasPrefix(p, "var/") {
			return fault.New(fault.Input, "user %s: home %s is not below /home or /var, the only places that can be written", u.Name, u.Home)
		}
		if err := t.Put(p, &tree.Inode{Type: tree.Directory, Mode: 0o700, UID: u.UID, GID: u.GID}); err != nil {
			return err
		}
	}
	return nil
}

// table is one of the account files: lines of fields.
type table [][]string

func (t table) find(name string) int {
	return slices.IndexFunc(t, func(f []string) bool { return f[0] == name })
}

func (t table) byNumber(id int) string {
	i := slices.IndexFunc(t, func(f []string) bool { return f[2] == strconv.Itoa(id) })
	if i < 0 {
		return ""
	}
	return t[i][0]
}

func addMember(line []string, name string) {
	members := strings.Split(line[3], ",")
	if line[3] == "" {
		members = nil
	}
	if !slices.Contains(members, name) {
		line[3] = strings.Join(append(members, name), ",")
	}
}

type accounts struct{ passwd, group, shadow, gshadow table }

// files names the account files with their number of fields.
func (a *accounts) files() []struct {
	path   string
	fields int
	table  *table
} {
	return []struct {
		path   string
		fields int
		table  *table
	}{
		{"etc/passwd", 7, &a.passwd},
		{"etc/group", 4, &a.group},
		{"etc/shadow", 9, &a.shadow},
		{"etc/gshadow", 4, &a.gshadow},
	}
}

func readAccounts(t *tree.Tree) (*accounts, error) {
	a := &accounts{}
	for _, f := range a.files() {
		b, err := t.ReadFile(f.path)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			fields := strings.Split(strings.TrimSuffix(line, "\n"), ":")
			if len(fields) != f.fields {
				return nil, fmt.Errorf("/%s: %q has %d fields, %d are expected", f.path, line, len(fields), f.fields)
			}
			*f.table = append(*f.table, fields)
		}
	}
	return a, nil
}

func (a *accounts) write(t *tree.Tree) error {
	for _, f := range a.files() {
		var b strings.Builder
		for _, fields := range *f.table {
			b.WriteString(strings.Join(fields, ":") + "\n")
		}
		if err := rewrite(t, f.path, b.String()); err != nil {
			return err
		}
	}
	return nil
}
