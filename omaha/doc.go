// Package omaha holds the messages of the Omaha protocol, version 3.0, with which machines ask for updates and report how they went.
//
// One POST carries one XML document each way. What Flatcar's update_engine 0.4.10 sends (testdata has captures) and reads back:
//
//	<request protocol="3.0" version="update_engine-0.4.10" installsource="scheduler" ismachine="1">
//	  <os version="Chateau" platform="CoreOS" sp="1.0.0_x86_64"/>
//	  <app appid="{…}" version="1.0.0" track="stable" machineid="…" bootid="{…}" board="amd64-usr" …>
//	    <ping active="1"/> <updatecheck/> <event eventtype="3" eventresult="2" previousversion=""/>
//	  </app>
//	</request>
//
//	<response protocol="3.0" server="semper">
//	  <daystart elapsed_seconds="…"/>
//	  <app appid="{…}" status="ok">
//	    <ping status="ok"/>
//	    <updatecheck status="ok" PollInterval="2700">
//	      <urls><url codebase="http://…/"/></urls>
//	      <manifest version="1.1.0">
//	        <packages><package name="full.crau" hash="SHA-1 base64" size="…" required="true" hash_sha256="hex"/></packages>
//	        <actions><action event="postinstall" sha256="SHA-256 base64" DisablePayloadBackoff="true"/></actions>
//	      </manifest>
//	    </updatecheck>
//	    <event status="ok"/>
//	  </app>
//	</response>
//
// The specification is Google's "Omaha Protocol v3" with the attributes that update_engine and go-omaha added; elements and attributes
// that this package does not know are skipped, as the specification asks.
//
// The package's hash_sha256 is in hex, as Nebraska writes it and Flatcar's downloader of extensions reads it; go-omaha's own verification
// of a package would want base64. The hash that update clients believe is the action's.
//
// # Extensions
//
// Attributes that other clients and servers ignore:
//
//	request  event@nextversion        Omaha's own, never sent by Flatcar: the version that was attempted
//	request  event@reason             a sentence for people, at most MaxReason bytes: why it failed
//	response updatecheck@reason       a sentence for people: why there is no update
//	response updatecheck@semper_freshness
//	                                  the channel's freshness statement in its envelope (package freshness), with or without an update
//
// # Limits
//
// Foreign documents are bounded before they are believed: see the Max constants. A document type declaration, an entity other than XML's
// five, a second root, a repeated attribute, a character that cannot be printed and a number that is none are refused with an error of
// kind fault.Input. Decoding never panics and its work is linear in the document's size.
package omaha

import "time"

// Protocol is the only protocol version spoken here.
const Protocol = "3.0"

// SemperApp is the application id of Semper OS.
const SemperApp = "{5e3e2f0a-9d1b-4c58-8f53-7d1f0c6b7a11}"

// Bounds on foreign documents.
const (
	MaxRequestSize  = 64 << 10  // bytes of a request's body, the default of a server
	MaxResponseSize = 256 << 10 // bytes of a response's body
	MaxDepth        = 16        // elements inside each other
	MaxElements     = 4096      // elements in one document
	MaxAttributes   = 64        // attributes of one element
	MaxApps         = 16        // applications in one document
	MaxEvents       = 64        // events of one application in one document
	MaxURLs         = 16        // URLs in one update
	MaxPackages     = 64        // packages, and actions, in one update
	MaxAttribute    = 256       // bytes of one attribute, unless said otherwise
	MaxReason       = 1 << 10   // bytes of a reason
	MaxURL          = 2 << 10   // bytes of a URL
	MaxFreshness    = 16 << 10  // bytes of a freshness statement

	// MaxPollInterval bounds what a server may ask for: a typing mistake there must not silence a fleet for ever.
	MaxPollInterval = 7 * 24 * time.Hour
)
