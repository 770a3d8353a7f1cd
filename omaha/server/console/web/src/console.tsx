// The console of semper-server.
import { render } from "preact";
import { App } from "./app";
import { follow } from "./lib/router";

document.addEventListener("click", follow);
const root = document.getElementById("console");
if (root) render(<App />, root);
