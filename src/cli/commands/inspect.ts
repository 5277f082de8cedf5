import { once } from 'node:events';
import { type FileHandle, open } from 'node:fs/promises';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { asError, explain } from '../../base/index.ts';
import {
  analyzeDescription,
  analyzeState,
  type ByteSource,
  COLOURS,
  deviceJson,
  deviceText,
  type Inspection,
  inspect,
  PLAIN,
  type ReportedSection,
  reportText,
} from '../../inspect/index.ts';
import { EXIT } from '../exit-status.ts';
import { examples } from '../options.ts';
import { errorFacts } from '../render/outcome.ts';

interface InspectFlags {
  readonly offset: number;
  readonly devices?: boolean;
  readonly section?: string;
  readonly analyze?: 'state' | 'desc';
  readonly json?: boolean;
}

export function addInspect(program: Command): void {
  const command = program
    .command('inspect')
    .summary('explain a stream file or checkpoint')
    .description(
      'Explains a file that holds a migration stream (file:, exec:cat, checkpoint, with or without mapped-ram): sections, RAM blocks and pages ' +
        'by kind, devices down to their fields, and where every byte went. A damaged file is explained up to the damage; exit status 1.',
    )
    .argument('<file>', 'file with the stream')
    .addOption(new Option('--offset <bytes>', 'where the stream begins in the file').argParser(offset).default(0))
    .option('--devices', 'show device sections down to their fields')
    .option('--section <name>', 'only sections whose name contains NAME, with their fields')
    .addOption(
      new Option('--analyze <what>', "print the JSON of QEMU's analyze-migration.py -d state or -d desc").choices([
        'state',
        'desc',
      ]),
    )
    .option('--json', 'JSON Lines on standard output: a line for each device shown, then one result')
    .action((file: string, flags: InspectFlags) => run(file, flags));
  examples(command, [
    'inspect vm.ckpt',
    'inspect vm.ckpt --section e1000                # one device, all its fields',
    'inspect vm.ckpt --devices --json | tail -n 1   # the report alone, for a program',
    'inspect stream.bin --analyze state             # as analyze-migration.py prints it',
  ]);
}

async function run(path: string, flags: InspectFlags): Promise<void> {
  let file: FileHandle | undefined;
  try {
    file = await open(path, 'r');
    const inspection = await inspect(await sourceOf(file, path), { offset: flags.offset });
    await print(output(inspection, flags));
    if (inspection.report.damage !== undefined) {
      process.exitCode = EXIT.failed;
      if (flags.analyze !== undefined) process.stderr.write(`vmferry: ${inspection.report.damage.message}\n`);
    }
  } catch (thrown) {
    process.exitCode = EXIT.failed;
    if (flags.json === true)
      await print([line({ type: 'result', status: 'failed', error: errorFacts(asError(thrown)) })]);
    else process.stderr.write(`vmferry: ${explain(thrown)}\n`);
  } finally {
    await file?.close();
  }
}

async function* output(inspection: Inspection, flags: InspectFlags): AsyncGenerator<string> {
  const { report } = inspection;
  if (flags.analyze === 'desc') return yield analyzeDescription(inspection);
  if (flags.analyze === 'state') return yield* analyzeState(inspection);

  const wanted = ({ idstr }: ReportedSection) => flags.section === undefined || idstr.includes(flags.section);
  const withDevices = flags.devices === true || flags.section !== undefined;
  if (flags.json === true) {
    if (withDevices) {
      for await (const device of inspection.devices(wanted)) yield line({ type: 'device', ...deviceJson(device) });
    }
    const status = report.damage === undefined ? 'completed' : 'failed';
    return yield line({ type: 'result', status, ...report, sections: report.sections.filter(wanted) });
  }
  const colour = process.stdout.isTTY === true && !process.env['NO_COLOR'];
  const paint = colour ? COLOURS : PLAIN;
  yield reportText(report, paint, wanted);
  if (!withDevices) return;
  for await (const device of inspection.devices(wanted)) yield `\n${deviceText(device, paint)}`;
}

function line(value: object): string {
  return `${JSON.stringify(value)}\n`;
}

async function print(texts: Iterable<string> | AsyncIterable<string>): Promise<void> {
  for await (const text of texts) {
    // A reader that has gone away (`| head`) wants no more.
    if (process.stdout.destroyed) return;
    if (!process.stdout.write(text)) await once(process.stdout, 'drain').catch(() => {});
  }
}

async function sourceOf(file: FileHandle, path: string): Promise<ByteSource> {
  const { size } = await file.stat();
  return {
    name: path,
    size,
    async read(offset, into) {
      let filled = 0;
      while (filled < into.length) {
        const { bytesRead } = await file.read(into, filled, into.length - filled, offset + filled);
        if (bytesRead === 0) break;
        filled += bytesRead;
      }
      return filled;
    },
  };
}

/** A place in a file, bytes: decimal or 0x... */
function offset(text: string): number {
  const value = /^(\d{1,15}|0x[0-9a-f]{1,13})$/i.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value)) throw new InvalidArgumentError('A byte offset is wanted: 65536 or 0x10000.');
  return value;
}
