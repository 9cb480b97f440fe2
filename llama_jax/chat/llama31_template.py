"""A Jinja chat template that writes what Llama 3.1 Instruct's on Hugging Face writes.

Hugging Face's template is not Meta's `ChatFormat`: there is always a system block that opens with
the knowledge cutoff and a date (26 Jul 2024 unless `date_string` says otherwise), messages are
trimmed, tools are offered in the first user message (in the system block if `tools_in_user_message`
is false), a tool's answer is written as JSON, and an assistant message holds either text or one
call. Checkpoints converted from Meta's format carry this, so that programs which use
`apply_chat_template` prompt them as they prompt the published ones.

Options: `date_string`, `tools_in_user_message`, `builtin_tools` (names), `custom_tools` (for
`tools`).
"""

LLAMA_31_TEMPLATE = r"""{%- set offered = custom_tools if custom_tools is defined else tools %}
{%- set has_tools = offered is defined and offered is not none %}
{%- set has_builtin = builtin_tools is defined %}
{%- set in_user_message = tools_in_user_message if tools_in_user_message is defined else true %}
{%- set today = date_string if date_string is defined else "26 Jul 2024" %}
{%- set answer_form = 'Respond in the format {"name": function name, "parameters": dictionary of '
    ~ 'argument name and its value}.Do not use variables.\n\n' %}

{%- macro header(role) %}
    {{- '<|start_header_id|>' ~ role ~ '<|end_header_id|>\n\n' }}
{%- endmacro %}

{%- macro definitions() %}
    {%- for tool in offered %}
        {{- tool | tojson(indent=4) ~ '\n\n' }}
    {%- endfor %}
{%- endmacro %}

{%- macro call(function) %}
    {%- if has_builtin and function.name in builtin_tools %}
        {{- '<|python_tag|>' ~ function.name ~ '.call(' }}
        {%- for name, value in function.arguments | items %}
            {{- name ~ '="' ~ value ~ '"' ~ ('' if loop.last else ', ') }}
        {%- endfor %}
        {{- ')' }}
    {%- else %}
        {{- '{"name": "' ~ function.name ~ '", "parameters": ' }}
        {{- function.arguments | tojson ~ '}' }}
    {%- endif %}
{%- endmacro %}

{%- set rest = namespace(start=0) %}
{%- set system = '' %}
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content | trim %}
    {%- set rest.start = 1 %}
{%- endif %}

{{- bos_token ~ header('system') }}
{%- if has_builtin or has_tools %}
    {{- 'Environment: ipython\n' }}
{%- endif %}
{%- if has_builtin %}
    {{- 'Tools: ' ~ builtin_tools | reject('equalto', 'code_interpreter') | join(', ') ~ '\n\n' }}
{%- endif %}
{{- 'Cutting Knowledge Date: December 2023\nToday Date: ' ~ today ~ '\n\n' }}
{%- if has_tools and not in_user_message %}
    {{- 'You have access to the following functions. To call a function, please respond with JSON '
        ~ 'for a function call.' ~ answer_form ~ definitions() }}
{%- endif %}
{{- system ~ '<|eot_id|>' }}

{%- if has_tools and in_user_message %}
    {%- if messages | length == rest.start %}
        {{- raise_exception('tools are offered in the first user message, and there is none') }}
    {%- endif %}
    {{- header('user') }}
    {{- 'Given the following functions, please respond with a JSON for a function call with its '
        ~ 'proper arguments that best answers the given prompt.\n\n' ~ answer_form ~ definitions()
        ~ messages[rest.start].content | trim ~ '<|eot_id|>' }}
    {%- set rest.start = rest.start + 1 %}
{%- endif %}

{%- for message in messages[rest.start:] %}
    {%- if 'tool_calls' in message %}
        {%- if message.tool_calls | length != 1 %}
            {{- raise_exception('Llama 3.1 makes one tool call at a time') }}
        {%- endif %}
        {{- header('assistant') }}
        {{- call(message.tool_calls[0].function) }}
        {{- '<|eom_id|>' if has_builtin else '<|eot_id|>' }}
    {%- elif message.role == 'tool' or message.role == 'ipython' %}
        {{- header('ipython') }}
        {%- if message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- '<|eot_id|>' }}
    {%- else %}
        {{- header(message.role) ~ message.content | trim ~ '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- header('assistant') }}
{%- endif %}"""
