import { Empty, Page } from "../components/page";
import { href } from "../lib/router";

export function Missing() {
  return (
    <Page title="No such page">
      <Empty icon="search" title="There is nothing at this address">The link may be old, or cut off. <a href={href("/")}>Go to the overview</a>.</Empty>
    </Page>
  );
}
