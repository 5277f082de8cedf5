import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Command, QmpServer } from '../../src/control/index.ts';
import { FakeHost } from './fake-host.ts';

export interface Served {
  readonly host: FakeHost;
  readonly server: QmpServer;
  readonly path: string;
  readonly folder: string;
}

/** Runs `act` beside a server on a socket in a folder of its own; all of it is gone afterwards. */
export async function withServer(
  act: (served: Served) => Promise<void>,
  commands: readonly Command[] = [],
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'vmferry-control-'));
  const path = join(folder, 'qmp.sock');
  const host = new FakeHost();
  const server = await QmpServer.listen({ host, address: { kind: 'unix', path }, commands });
  try {
    await act({ host, server, path, folder });
  } finally {
    await server.close();
    await rm(folder, { recursive: true });
  }
}
