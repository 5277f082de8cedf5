import assert from 'node:assert/strict';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { findPeer, findPeers } from '../../src/qemu/index.ts';

test('a QEMU named in the environment comes before all others; what does not answer --version is none', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'vmferry-peers-'));
  try {
    const fake = async (name: string, program: string) => {
      const path = join(folder, name);
      await writeFile(path, `#!/bin/sh\n${program}\n`);
      await chmod(path, 0o755);
      return path;
    };
    const named = await fake('named', 'echo QEMU emulator version 7.2.99');
    process.env['VMFERRY_QEMU_7_2'] = named;
    process.env['VMFERRY_QEMU_10_0'] = await fake('broken', 'echo nothing; exit 1');
    await fake('qemu-system-x86_64', 'echo QEMU emulator version 3.1.4');
    process.env['PATH'] = `${folder}:/nonexistent`;
    assert.deepEqual(await findPeer('7.2'), { name: '7.2', version: '7.2.99', path: named });
    assert.equal((await findPeer('3.1'))?.version, '3.1.4');
    assert.notEqual((await findPeer('10.0'))?.path, join(folder, 'broken'));
    assert.equal(await findPeer('99.0'), undefined);
    const versions = (await findPeers()).map(({ name }) => name);
    assert.equal(versions[0], '3.1', 'oldest first');
  } finally {
    await rm(folder, { recursive: true });
  }
});
