import { QmpServer } from '../control/index.ts';
import type { Host } from '../migration/index.ts';

/** How a command that has `--qmp PATH` offers QMP for its host; undefined if it was not asked to. */
export function serveQmp(path: string | undefined): ((host: Host) => Promise<QmpServer>) | undefined {
  return path === undefined ? undefined : (host) => QmpServer.listen({ host, address: { kind: 'unix', path } });
}
