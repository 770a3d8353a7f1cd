package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/builder/verify"
	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/payload"
)

func newVerifyCommand() *cobra.Command {
	var certFiles, keyFiles []string
	var threshold int
	c := &cobra.Command{
		Use:   "verify RELEASE|DISK --cert PEM [--payload-key PEM]...",
		Short: "Read a finished release or disk back as a stranger would",
		Long: `Read a finished release or disk back as a stranger would, with nothing but the certificate that
firmware would be given (--cert) and the public keys that sign releases (--payload-key).`,
		Args: exactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			o := verify.Options{Terminal: os.Stderr, Trust: payload.Trust{Threshold: threshold}}
			if len(certFiles) == 0 {
				return fault.New(fault.Usage, "%s needs --cert PEM, for instance KEYS/secure-boot.crt", c.CommandPath())
			}
			if threshold < 1 {
				return fault.New(fault.Usage, "%s: --threshold %d: at least one signature must be asked for", c.CommandPath(), threshold)
			}
			for _, name := range certFiles {
				b, err := readPublicFile(name)
				if err != nil {
					return err
				}
				certs, err := verify.ParseCertificates(b)
				if err != nil {
					return fault.New(fault.Input, "--cert %s: %w", name, err)
				}
				o.Certificates = append(o.Certificates, certs...)
			}
			for _, name := range keyFiles {
				b, err := readPublicFile(name)
				if err != nil {
					return err
				}
				keys, err := payload.ParsePublicKeys(b)
				if err != nil {
					return fault.New(fault.Input, "--payload-key %s: %w", name, err)
				}
				o.Trust.Keys = append(o.Trust.Keys, keys...)
			}
			report, err := verify.Run(c.Context(), args[0], o)
			if err != nil {
				return err
			}
			if asJSON, _ := c.Flags().GetBool("json"); asJSON {
				return printReportJSON(c.OutOrStdout(), report)
			}
			if err := printReport(c.OutOrStdout(), report); err != nil {
				return err
			}
			return report.Err()
		},
	}
	c.Flags().StringArrayVar(&certFiles, "cert", nil, "file with the certificates, one of which has signed boot loader and kernel image; may be repeated")
	c.Flags().StringArrayVar(&keyFiles, "payload-key", nil, "file with public keys that sign releases; may be repeated")
	c.Flags().IntVar(&threshold, "threshold", 1, "so many different payload keys must have signed")
	return c
}

// readPublicFile reads a small file that a flag names.
func readPublicFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fault.New(fault.Input, "%w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return nil, fault.New(fault.Input, "%w", err)
	}
	return b, nil
}

func printReport(w io.Writer, r *verify.Report) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range r.Checks {
		status := string(c.Status)
		if c.Status == verify.Failed {
			status = "FAILED"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", status, c.Name, strings.ReplaceAll(c.Detail, "\n", "; "))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	skipped := ""
	if n := r.Count(verify.Skipped); n > 0 {
		skipped = fmt.Sprintf(", %d skipped", n)
	}
	_, err := fmt.Fprintf(w, "\n%s %s: %d ok, %d failed%s\n", r.Kind, r.Target, r.Count(verify.OK), r.Count(verify.Failed), skipped)
	return err
}

// printReportJSON prints the report, with "ok" and, where a check failed, what other commands print of an error.
func printReportJSON(w io.Writer, r *verify.Report) error {
	out := struct {
		*verify.Report
		OK    bool   `json:"ok"`
		Error string `json:"error,omitempty"`
		Kind  string `json:"kind,omitempty"`
	}{Report: r, OK: true}
	err := r.Err()
	if err != nil {
		out.OK, out.Error, out.Kind = false, err.Error(), fault.KindOf(err).String()
	}
	if e := json.NewEncoder(w).Encode(out); e != nil {
		return e
	}
	if err != nil {
		return printed{err}
	}
	return nil
}
