// Who may do what (people, tokens), and who hears of it (webhooks). For administrators.
import { Card, Empty, Page } from "../components/page";
import { may, useMe } from "../lib/session";
import { PeopleCard } from "./people-list";
import { TokensCard } from "./tokens";
import { WebhooksCard } from "./webhooks";

export function PeoplePage() {
  const me = useMe();
  return (
    <Page title="People and tokens" lead="An operator cannot bring code to machines, and a publisher cannot move them: one stolen token does not do both.">
      {me && !may("admin") ? <Card><Empty icon="people" title="Administrators see this">You are signed in as {me.role}.</Empty></Card>
        : me && <><PeopleCard /><TokensCard /><WebhooksCard /></>}
    </Page>
  );
}
