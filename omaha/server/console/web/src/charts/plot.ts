// uPlot, in a part of its own that is fetched beside the rest: the page has its text before its pictures.
export { default } from "uplot";
