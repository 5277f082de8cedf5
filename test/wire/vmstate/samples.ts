/** Any description of three levels, with a state for it: for property tests. */
import fc from 'fast-check';
import {
  array,
  bool,
  buffer,
  type Description,
  type Field,
  i8,
  i16,
  i32,
  i64,
  struct,
  subsection,
  text,
  timer,
  u8,
  u16,
  u32,
  u64,
  unused,
  vmstate,
} from '../../../src/wire/vmstate/index.ts';

export interface Sample {
  readonly description: Description<object>;
  readonly state: object;
}

interface SampleField {
  readonly field: Field<unknown>;
  readonly value: unknown;
}

const sized = fc.integer({ min: 1, max: 9 });
const scalarField: fc.Arbitrary<SampleField> = fc.oneof(
  fc.nat(0xff).map((value) => ({ field: u8, value })),
  fc.nat(0xffff).map((value) => ({ field: u16, value })),
  fc.nat(0xffff_ffff).map((value) => ({ field: u32, value })),
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map((value) => ({ field: u64, value })),
  fc.integer({ min: -128, max: 127 }).map((value) => ({ field: i8, value })),
  fc.integer({ min: -0x8000, max: 0x7fff }).map((value) => ({ field: i16, value })),
  fc.integer().map((value) => ({ field: i32, value })),
  fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map((value) => ({ field: i64, value })),
  fc.boolean().map((value) => ({ field: bool, value })),
  fc.option(fc.bigInt({ min: 0n, max: 2n ** 64n - 2n }), { nil: undefined }).map((value) => ({ field: timer, value })),
  sized.chain((n) => fc.uint8Array({ minLength: n, maxLength: n }).map((value) => ({ field: buffer(n), value }))),
  fc.string({ unit: 'grapheme-ascii', maxLength: 8 }).map((value) => ({ field: text(9), value })),
  sized.map((n) => ({ field: unused(n), value: undefined })),
  sized.chain((n) =>
    fc.array(fc.nat(0xffff), { minLength: n, maxLength: n }).map((value) => ({ field: array(u16, n), value })),
  ),
) as fc.Arbitrary<SampleField>;

export function sample(name: string, depth: number): fc.Arbitrary<Sample> {
  const nested: fc.Arbitrary<SampleField> =
    depth === 0
      ? scalarField
      : fc.oneof(
          { weight: 3, arbitrary: scalarField },
          {
            weight: 1,
            arbitrary: fc
              .tuple(sample(`${name}~s`, depth - 1), fc.boolean())
              .map(([{ description, state }, many]) =>
                many
                  ? { field: array(struct(description), 2), value: [state, state] }
                  : { field: struct(description), value: state },
              ) as fc.Arbitrary<SampleField>,
          },
        );
  const subs =
    depth === 0
      ? fc.constant([])
      : fc
          .tuple(sample(`${name}/a`, depth - 1), sample(`${name}/b`, depth - 1), fc.nat(2))
          .map(([a, b, count]) => [a, b].slice(0, count));
  // A description without fields of its own in an array could not tell its subsections from those of the next element.
  const fields = fc.tuple(scalarField, fc.array(nested, { maxLength: 5 })).map(([first, rest]) => [first, ...rest]);
  return fc.tuple(fields, subs, fc.nat(0xffff)).map(([fields, subs, version]) => {
    const named = fields.map(({ field, value }, i) => [`f${i}`, field, value] as const);
    const optional = subs.map(({ description, state }, i) => [`s${i}`, description, state] as const);
    const description = vmstate({
      name,
      version,
      fields: Object.fromEntries(named.map(([key, field]) => [key, field])),
      subsections: Object.fromEntries(optional.map(([key, sub]) => [key, subsection(sub)])),
    });
    const state = Object.fromEntries([
      ...named.filter(([, field]) => !('unused' in field)).map(([key, , value]) => [key, value]),
      ...optional.map(([key, , value]) => [key, value]),
    ]);
    return { description: description as unknown as Description<object>, state };
  });
}
